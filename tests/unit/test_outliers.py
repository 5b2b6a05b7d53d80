"""The general texts that ship with Sealign."""

from __future__ import annotations

from sealign.defaults import FEWEST_OUTLIERS, OUTLIERS
from sealign.outliers import general_texts


def test_general_texts_are_texts_and_as_many_as_is_said() -> None:
    texts = general_texts()
    assert len(texts) == len(set(texts))
    assert f"{len(texts)} English sentences" in (general_texts.__doc__ or "")
    assert FEWEST_OUTLIERS <= len(texts) <= OUTLIERS
    assert all(text == " ".join(text.split()) and len(text.split()) > 3 and text[0] != "#" for text in texts)
