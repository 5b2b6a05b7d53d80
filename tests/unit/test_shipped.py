"""The texts that ship with Sealign."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.texts.general import DIGEST, TEXTS, compose
from sealign.alignment import PublicSet
from sealign.defaults import FEWEST_OUTLIERS, OUTLIERS
from sealign.errors import InvalidInputError
from sealign.shipped import general_texts, outlier_texts


def test_outliers_are_texts_and_as_many_as_is_said() -> None:
    texts = outlier_texts()
    assert len(texts) == len(set(texts))
    assert f"{len(texts)} English sentences" in (outlier_texts.__doc__ or "")
    assert FEWEST_OUTLIERS <= len(texts) <= OUTLIERS
    assert all(text == " ".join(text.split()) and len(text.split()) > 3 and text[0] != "#" for text in texts)


def test_the_general_set_is_what_its_script_composed() -> None:
    texts = general_texts()
    assert PublicSet(texts).digest == DIGEST  # clients and silos of all releases with it agree
    assert len(texts) == TEXTS
    assert f"{len(texts):,} English" in (general_texts.__doc__ or "")
    assert all(text == " ".join(text.split()) for text in texts)


def test_the_general_set_is_composed_of_every_field(tmp_path: Path) -> None:
    def synset(field: int, word: str, gloss: str) -> str:
        return f"00001740 {field:02} n 01 {word} 0 000 | {gloss}"

    nouns = [synset(20, f"Plant_{number}", f"a plant with exactly {number} leaves") for number in range(100)]
    nouns += [synset(18, "Ada", 'a mathematician of the nineteenth century; "Ada wrote the first program"')]
    nouns += [synset(18, "fool", "an offensive term for a person")]
    for name, lines in (("noun", nouns), ("verb", [synset(40, "pay", "give money for goods (or services)")])):
        (tmp_path / f"data.{name}").write_text("\n".join(["  1 the licence", *lines, ""]))
    for name in ("adj", "adv"):
        (tmp_path / f"data.{name}").write_text("")
    texts = compose(tmp_path, 60).texts
    assert len(texts) == 20 + 20 + 1  # there is one example
    assert {"Ada wrote the first program", "a mathematician of the nineteenth century"} < set(texts)
    assert "give money for goods (or services)" in texts
    assert [text for text in texts if text.lower().rstrip("?").endswith(" give money for goods")]
    assert not [text for text in texts if "offensive" in text or "licence" in text]
    assert compose(tmp_path, 60).texts == texts
    (tmp_path / "data.adv").unlink()
    with pytest.raises(InvalidInputError, match=r"data\.adv"):
        compose(tmp_path, 60)
