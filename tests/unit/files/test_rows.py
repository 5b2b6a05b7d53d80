"""Rows in files: resumed where an interrupted run stopped, and mapped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.errors import StorageError
from sealign.files import load_rows, resumed_rows, row_parts, save_rows, spilled_rows

COUNTS = (3, 0, 5, 2)
ROWS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
PARTS = tuple(np.split(ROWS, np.cumsum(COUNTS)[:-1]))


class Reader:
    """Computes parts, and fails before one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.read: list[int] = []

    def __call__(self, done: int) -> Iterator[NDArray[np.float32]]:
        for number in range(done, len(PARTS)):
            if number == self.fails_at:
                raise KeyboardInterrupt
            self.read.append(number)
            yield PARTS[number]


@pytest.mark.parametrize("torn", [0, 5])
def test_an_interrupted_run_resumes_after_the_last_complete_part(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "states"
    with pytest.raises(KeyboardInterrupt):
        resumed_rows(path, COUNTS, 4, Reader(fails_at=3))
    with path.open("ab") as stream:
        stream.write(bytes(torn))  # a part that was not written whole
    rest = Reader()
    rows = resumed_rows(path, COUNTS, 4, rest)
    assert rest.read == [3]
    assert np.array_equal(rows, ROWS.astype(np.float16))
    assert path.stat().st_mode & 0o777 == 0o600
    again = Reader()
    assert np.array_equal(resumed_rows(path, COUNTS, 4, again), rows)
    assert not again.read


def test_a_file_grows_with_its_parts(tmp_path: Path) -> None:
    resumed_rows(tmp_path / "states", COUNTS[:1], 4, lambda done: PARTS[done:1])
    rest = Reader()
    assert np.array_equal(resumed_rows(tmp_path / "states", COUNTS, 4, rest), ROWS.astype(np.float16))
    assert rest.read == [2, 3]  # the second part has no rows


@pytest.mark.parametrize("parts", [PARTS[:2], (PARTS[2],), (*PARTS, PARTS[0])])
def test_parts_that_were_not_announced_are_refused(tmp_path: Path, parts: tuple[NDArray[np.float32], ...]) -> None:
    with pytest.raises(StorageError, match=r"missing|not announced"):
        resumed_rows(tmp_path / "states", COUNTS, 4, lambda _: parts)


def test_spilled_rows_leave_no_file(tmp_path: Path) -> None:
    rows = spilled_rows(row_parts(1e6 * ROWS), 4, tmp_path)
    assert np.array_equal(rows, np.clip(1e6 * ROWS, -65504, 65504).astype(np.float16))
    assert not list(tmp_path.iterdir())
    assert spilled_rows([], 4, tmp_path).shape == (0, 4)


def test_stored_rows_are_mapped_as_they_are(tmp_path: Path) -> None:
    save_rows(tmp_path / "full", ROWS)
    save_rows(tmp_path / "half", ROWS.astype(np.float16))
    assert np.array_equal(load_rows(tmp_path / "full", 4, "Align again.", np.float32), ROWS)
    assert np.array_equal(load_rows(tmp_path / "half", 4, "Align again."), ROWS.astype(np.float16))
    assert (tmp_path / "full").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", [0, 41, -33, -1])
def test_one_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    path = tmp_path / "states"
    resumed_rows(path, COUNTS, 4, Reader())
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"states is damaged.* Align again\."):
        load_rows(path, 4, "Align again.")
    with pytest.raises(StorageError, match=r"states is damaged.* Delete it, then read the texts again\."):
        resumed_rows(path, COUNTS, 4, Reader())
    path.unlink()
    assert np.array_equal(resumed_rows(path, COUNTS, 4, Reader()), ROWS.astype(np.float16))


@pytest.mark.parametrize("size", [0, 31, 80, 111, 113])
def test_a_cut_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "states"
    resumed_rows(path, COUNTS, 4, Reader())
    path.write_bytes((path.read_bytes() + b"more")[:size])
    with pytest.raises(StorageError, match="Align again"):
        load_rows(path, 4, "Align again.")


def test_a_file_without_its_digest_gets_it(tmp_path: Path) -> None:
    """The process ended between the last part and the digest."""
    path = tmp_path / "states"
    rows = resumed_rows(path, COUNTS, 4, Reader())
    for missing in (32, 5):
        path.write_bytes(path.read_bytes()[:-missing])
        reader = Reader()
        assert np.array_equal(resumed_rows(path, COUNTS, 4, reader), rows)
        assert not reader.read


def test_files_need_nothing_that_windows_lacks() -> None:
    """A client on Windows imports all of this."""
    without = "import sys; sys.modules['fcntl'] = None; import sealign.files, sealign_client"
    subprocess.run([sys.executable, "-c", without], check=True)
