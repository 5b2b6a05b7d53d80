from __future__ import annotations

from pathlib import Path

import pytest

from sealign.errors import InvalidInputError
from sealign.labelled import read_labelled


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "data.tsv"
    path.write_bytes(content.encode())
    return path


def test_labels_come_back_as_they_stand(tmp_path: Path) -> None:
    path = written(tmp_path, 'label\ttext\ncrude oil\tone\n"grain"\ttwo\n été \tthree\n1\tfour\n')
    assert read_labelled(path) == (["crude oil", '"grain"', " été ", "1"], ["one", "two", "three", "four"])


def test_columns_are_read_by_their_names(tmp_path: Path) -> None:
    swapped = written(tmp_path, "text\tlabel\ncopper prices rose\tmetals\n")
    assert read_labelled(swapped) == (["metals"], ["copper prices rose"])


def test_a_byte_order_mark_is_not_part_of_the_header(tmp_path: Path) -> None:
    assert read_labelled(written(tmp_path, "\ufefflabel\ttext\r\nearn\tprofit rose\r\n")) == (["earn"], ["profit rose"])


def test_only_line_feeds_end_a_row(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\x85d", "e\x0cf"]
    path = written(tmp_path, "label\ttext\n" + "".join(f"x\t{text}\n" for text in texts))
    assert read_labelled(path)[1] == texts


@pytest.mark.parametrize(
    ("one", "other"), [("earn", "earn "), ("earn", '"earn"'), ("caf\u00e9", "cafe\u0301"), ("crude oil", "crude  oil")]
)
def test_labels_that_look_alike_are_not_two_classes(tmp_path: Path, one: str, other: str) -> None:
    path = written(tmp_path, f"label\ttext\n{one}\tfirst\nship\tsecond\n{other}\tthird\n")
    with pytest.raises(InvalidInputError, match="label of line 4 differs from that of line 2 only"):
        read_labelled(path)
