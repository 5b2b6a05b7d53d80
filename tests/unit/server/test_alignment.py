"""Plain alignment in one process (what crosses the wire is tested against a running silo)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, StorageError
from sealign_server.alignment import MAX_DIMENSION, AlignmentSession
from sealign_server.store import SiloStore
from tests.unit.server.conftest import DIGEST, PUBLIC_ROWS, Rows


@pytest.mark.parametrize("chunk", [1, 7, PUBLIC_ROWS])
def test_chunks_do_not_matter(aligned: SiloStore, client_card: EncoderCard, public_rows: Rows, chunk: int) -> None:
    expected = aligned.load_map(client_card.fingerprint)
    session = AlignmentSession(aligned, client_card, DIGEST, PUBLIC_ROWS)
    for start in range(0, PUBLIC_ROWS, chunk):
        session.add(public_rows[start : start + chunk].tobytes())
    learned = session.learn()
    assert np.allclose(learned.weight, expected.weight, atol=1e-9)
    assert learned.target_fingerprint == aligned.document.encoder_card.fingerprint
    assert learned.public_set == DIGEST


def test_nothing_is_kept_before_the_end(aligned: SiloStore, client_card: EncoderCard, public_rows: Rows) -> None:
    path = aligned.map_path(client_card.fingerprint)
    before = path.read_bytes()
    session = AlignmentSession(aligned, client_card, DIGEST, PUBLIC_ROWS)
    session.add(public_rows[:-1].tobytes())
    with pytest.raises(InvalidInputError, match="ended after 79 of 80 rows"):
        session.learn()
    assert path.read_bytes() == before


def test_a_map_that_cannot_be_written(
    aligned: SiloStore, client_card: EncoderCard, public_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = aligned.map_path(client_card.fingerprint)
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    session = AlignmentSession(aligned, client_card, DIGEST, PUBLIC_ROWS)
    session.add(public_rows.tobytes())
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="No space left on device; the previous file, if any, is intact"):
        session.learn()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_dimensions_are_bounded(store: SiloStore, client_card: EncoderCard) -> None:
    large = client_card.model_copy(update={"dimension": MAX_DIMENSION + 1})
    with pytest.raises(InvalidInputError, match="the most is 8192"):
        AlignmentSession(store, large, DIGEST, PUBLIC_ROWS)
