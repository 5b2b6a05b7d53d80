"""Cross-covariances that wait for their clients: private, bounded in number and age, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import EncryptedProduct, PackingPlan, ReplyCiphertext, SecurityTable, candidates, product_shape
from sealign.errors import OverloadedError, StorageError
from sealign.protocol import CrossCovariancePart
from sealign_server.store import Undelivered, UndeliveredStore
from sealign_server.store.undelivered import IN_ALL, PER_IDENTITY

TABLE = SecurityTable.CLASSICAL
ABOUT: Mapping[str, str | int] = {
    "space": "embeddings",
    "public_set": "d" * 64,
    "encoder": "c" * 64,
    "rows": 2048,
    "dimension": 384,
}
CLIENT = "CN=client"


@pytest.fixture(scope="module")
def plan() -> PackingPlan:
    return candidates(product_shape(np.ones((8, 3)), np.zeros(3), rows=4), TABLE)[0]


def result(plan: PackingPlan, number: int = 0, identity: str = CLIENT) -> Undelivered:
    parts = tuple(
        CrossCovariancePart(
            index,
            EncryptedProduct(plan.id, b"k" * 32, (ReplyCiphertext(bytes([index, 1]), b"mask"),) * 2),
            2.5,
        )
        for index in range(3)
    )
    return Undelivered(bytes([number]) * 16, identity, ABOUT, plan, parts)


@pytest.fixture
def store(tmp_path: Path) -> UndeliveredStore:
    return UndeliveredStore(tmp_path / "undelivered")


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "undelivered").rglob("*.safetensors"))


def test_what_is_kept_comes_back_in_another_process_until_it_is_removed(
    store: UndeliveredStore, plan: PackingPlan, tmp_path: Path
) -> None:
    store.keep(result(plan))
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    again = UndeliveredStore(tmp_path / "undelivered")
    assert again.find(result(plan).session, CLIENT, ABOUT, TABLE) == result(plan)
    again.remove(result(plan))
    assert store.find(result(plan).session, CLIENT, ABOUT, TABLE) is None
    store.remove(result(plan))


@pytest.mark.parametrize(
    "other", [{"encoder": "e" * 64}, {"public_set": "e" * 64}, {"rows": 2047}, {"dimension": 383}, {"space": "other"}]
)
def test_it_is_for_the_client_and_the_request_that_it_was_made_for(
    store: UndeliveredStore, plan: PackingPlan, other: dict[str, str | int]
) -> None:
    store.keep(result(plan))
    assert store.find(result(plan).session, CLIENT, {**ABOUT, **other}, TABLE) is None
    assert store.find(result(plan).session, "CN=other", ABOUT, TABLE) is None


@pytest.mark.parametrize("session", [b"", b"x" * 15, b"\0" * 17, b"/../" * 4])
def test_names_that_are_none(store: UndeliveredStore, plan: PackingPlan, session: bytes) -> None:
    store.keep(result(plan))
    assert store.find(session, CLIENT, ABOUT, TABLE) is None


def test_an_old_one_is_evicted(store: UndeliveredStore, plan: PackingPlan, tmp_path: Path) -> None:
    store.keep(result(plan))
    (file,) = files(tmp_path)
    hours_ago = file.stat().st_mtime - 3700
    os.utime(file, (hours_ago, hours_ago))
    store.sweep(hours=1.0)
    assert store.find(result(plan).session, CLIENT, ABOUT, TABLE) is None


def test_a_client_has_a_few_and_loses_its_oldest(store: UndeliveredStore, plan: PackingPlan) -> None:
    store.keep(result(plan, 100, "CN=other"))
    for number in range(PER_IDENTITY + 1):
        store.keep(result(plan, number))
    kept = [
        number for number in range(PER_IDENTITY + 1) if store.find(result(plan, number).session, CLIENT, ABOUT, TABLE)
    ]
    assert kept == list(range(1, PER_IDENTITY + 1))
    assert store.find(result(plan, 100).session, "CN=other", ABOUT, TABLE)


def test_newcomers_wait_when_there_are_too_many(store: UndeliveredStore, plan: PackingPlan) -> None:
    for number in range(IN_ALL):
        store.require_room("CN=newcomer", 1.0)
        store.keep(result(plan, number, f"CN={number}"))
    with pytest.raises(OverloadedError, match="try again later"):
        store.require_room("CN=newcomer", 1.0)
    store.require_room("CN=0", 1.0)


def test_a_damaged_file(store: UndeliveredStore, plan: PackingPlan, tmp_path: Path) -> None:
    store.keep(result(plan))
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        store.find(result(plan).session, CLIENT, ABOUT, TABLE)


def test_parts_of_several_sizes_keep_their_order(store: UndeliveredStore, plan: PackingPlan) -> None:
    made = result(plan)
    first = replace(
        made.parts[0], product=replace(made.parts[0].product, ciphertexts=made.parts[0].product.ciphertexts[:1])
    )
    made = replace(made, parts=(first, *made.parts[1:]))
    store.keep(made)
    assert store.find(made.session, CLIENT, ABOUT, TABLE) == made
