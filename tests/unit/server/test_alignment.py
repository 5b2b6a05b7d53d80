"""Plain alignment in one process (what crosses the wire is tested against a running silo)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.alignment import RidgeStatistics, fit_map
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, OverloadedError, StorageError
from sealign.protocol import EMBEDDINGS, AlignmentRequest, RowKind
from sealign_server.serving import Alignments
from sealign_server.serving.plain_alignment import PlainAlignment, plain_bytes
from sealign_server.settings import ServingOptions
from sealign_server.store import SiloStore
from tests.support.silo import align_plain, space_of
from tests.unit.server.conftest import ALICE, BOB, DIGEST, PUBLIC_ROWS, Rows


@pytest.fixture
def request_(client_card: EncoderCard) -> AlignmentRequest:
    return AlignmentRequest(EMBEDDINGS, client_card, DIGEST, PUBLIC_ROWS)


def maps(store: SiloStore) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (store.directory / "space" / "maps").rglob("*") if path.is_file()}


@pytest.mark.parametrize("chunk", [1, 7, PUBLIC_ROWS])
def test_chunks_do_not_matter(
    store: SiloStore, aligned: RowKind, request_: AlignmentRequest, public_rows: Rows, chunk: int
) -> None:
    expected = store.space.load_map(ALICE, str(aligned.map))
    alignment = PlainAlignment(space_of(store), BOB, request_)
    for start in range(0, PUBLIC_ROWS, chunk):
        alignment.add(public_rows[start : start + chunk])
    record = alignment.learn()
    learned = store.space.load_map(BOB, record.card.id)
    assert np.allclose(learned.weight, expected.weight, atol=1e-9)
    assert learned.target_fingerprint == store.document.encoder_card.fingerprint
    assert learned.public_set == DIGEST


def test_nothing_is_kept_before_the_end(
    store: SiloStore, aligned: RowKind, request_: AlignmentRequest, public_rows: Rows
) -> None:
    before = maps(store)
    alignment = PlainAlignment(space_of(store), ALICE, request_)
    alignment.add(public_rows[:-1])
    with pytest.raises(InvalidInputError, match="ended after 79 of 80 rows"):
        alignment.learn()
    assert maps(store) == before


def test_a_map_that_cannot_be_written(
    store: SiloStore,
    aligned: RowKind,
    request_: AlignmentRequest,
    public_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = maps(store)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    alignment = PlainAlignment(space_of(store), BOB, request_)
    alignment.add(public_rows)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left on device. The previous file, if any, is intact"):
        alignment.learn()
    assert maps(store) == before


def test_a_silo_that_serves_its_own_heads_chooses_among_families_of_maps(
    store: SiloStore, client_card: EncoderCard, public_rows: Rows
) -> None:
    space = space_of(store, ServingOptions(fit_heads=False))
    record = align_plain(space, ALICE, client_card, DIGEST, public_rows)
    statistics = RidgeStatistics(public_rows.shape[1], 12)
    statistics.update(public_rows, store.space.load_public_set(DIGEST).rows)
    expected = fit_map(statistics, source_fingerprint="a", target_fingerprint="b", public_set="c")
    learned = store.space.load_map(ALICE, record.card.id)
    assert learned.quality.family == expected.quality.family
    np.testing.assert_allclose(learned.weight, expected.weight)


def test_memory_is_declared_before_it_is_taken(
    store: SiloStore, client_card: EncoderCard, request_: AlignmentRequest
) -> None:
    """34 MB of rows at d=8192 took 3 GB in the old silo."""
    space, alignments = space_of(store), Alignments(ServingOptions(alignment_bytes=1 << 30))
    large = AlignmentRequest(EMBEDDINGS, client_card.model_copy(update={"dimension": 8192}), DIGEST, PUBLIC_ROWS)
    assert plain_bytes(space, large) > 5 << 30
    with pytest.raises(InvalidInputError, match="8192 dimensions would take"), alignments.plain(space, ALICE, large):
        pass
    with alignments.plain(space, ALICE, request_):
        pass


def test_one_alignment_for_each_client_and_several_in_all(store: SiloStore, request_: AlignmentRequest) -> None:
    """One slow client used to keep all others from aligning."""
    space, alignments = space_of(store), Alignments(ServingOptions(max_alignments=2))
    with alignments.plain(space, ALICE, request_):
        with pytest.raises(OverloadedError, match="aligning already"), alignments.plain(space, ALICE, request_):
            pass
        with (
            alignments.plain(space, BOB, request_),
            pytest.raises(OverloadedError, match="2 other clients"),
            alignments.plain(space, "CN=carol", request_),
        ):
            pass
    with alignments.plain(space, ALICE, request_):
        pass


def test_memory_is_shared_by_all(store: SiloStore, request_: AlignmentRequest) -> None:
    space = space_of(store)
    alignments = Alignments(ServingOptions(alignment_bytes=plain_bytes(space, request_) * 3 // 2))
    with (
        alignments.plain(space, ALICE, request_),
        pytest.raises(OverloadedError, match="memory"),
        alignments.plain(space, BOB, request_),
    ):
        pass
