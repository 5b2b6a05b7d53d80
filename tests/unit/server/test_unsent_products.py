"""Cross-covariances that wait for their clients: private, bounded in number and age, and nobody else's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sealign.errors import OverloadedError, StorageError
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.releases import Release
from sealign_server.unsent_products import IN_ALL, PER_CLIENT, UnsentProduct, UnsentProducts

RELEASE = Release("d" * 64, "c" * 64, "CN=client", rows=2048, dimension=384)


def product(number: int = 0, release: Release = RELEASE) -> UnsentProduct:
    offer = pb.AlignmentOffer(session=bytes([number]) * 16, next_block=8)
    parts = tuple(pb.CrossCovariancePart(index=index, squared_norm=2.5) for index in range(3))
    return UnsentProduct(offer.session, release, offer, parts)


@pytest.fixture
def products(tmp_path: Path) -> UnsentProducts:
    return UnsentProducts(tmp_path / "unsent", hours=1.0)


def test_what_is_kept_comes_back_in_another_process_until_it_is_removed(
    products: UnsentProducts, tmp_path: Path
) -> None:
    products.keep(product())
    (file,) = (tmp_path / "unsent").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    again = UnsentProducts(tmp_path / "unsent", hours=1.0)
    assert again.find(product().session, RELEASE) == product()
    again.remove(product())
    assert products.find(product().session, RELEASE) is None
    products.remove(product())


@pytest.mark.parametrize(
    "other",
    [{"client": "CN=other"}, {"encoder": "e" * 64}, {"public_set": "e" * 64}, {"rows": 2047}, {"dimension": 383}],
)
def test_it_is_for_the_client_and_the_request_that_it_was_made_for(
    products: UnsentProducts, other: dict[str, object]
) -> None:
    products.keep(product())
    assert products.find(product().session, replace(RELEASE, **other)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("session", [b"", b"x" * 15, b"\0" * 17, b"/../" * 4])
def test_names_that_are_none(products: UnsentProducts, session: bytes) -> None:
    products.keep(product())
    assert products.find(session, RELEASE) is None


def test_an_old_one_is_given_up(products: UnsentProducts, tmp_path: Path) -> None:
    products.keep(product())
    (file,) = (tmp_path / "unsent").iterdir()
    hours_ago = file.stat().st_mtime - 3700
    os.utime(file, (hours_ago, hours_ago))
    assert products.find(product().session, RELEASE) is None
    assert not file.exists()


def test_a_client_has_a_few_and_loses_its_oldest(products: UnsentProducts) -> None:
    products.keep(product(100, replace(RELEASE, client="CN=other")))
    for number in range(PER_CLIENT + 1):
        products.keep(product(number))
    kept = [number for number in range(PER_CLIENT + 1) if products.find(product(number).session, RELEASE)]
    assert kept == list(range(1, PER_CLIENT + 1))
    assert products.find(product(100).session, replace(RELEASE, client="CN=other"))


def test_newcomers_wait_when_there_are_too_many(products: UnsentProducts) -> None:
    for number in range(IN_ALL):
        products.require_room("CN=newcomer")
        products.keep(product(number, replace(RELEASE, client=f"CN={number}")))
    with pytest.raises(OverloadedError, match="try again later"):
        products.require_room("CN=newcomer")
    products.require_room("CN=0")


def test_a_damaged_file(products: UnsentProducts, tmp_path: Path) -> None:
    products.keep(product())
    (file,) = (tmp_path / "unsent").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        products.find(product().session, RELEASE)
