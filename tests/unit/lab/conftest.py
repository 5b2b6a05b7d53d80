"""A small evaluation with real models: newswire and newsgroup posts, cut to a sentence's length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.demo.data import LabelledText, all_minilm, newsgroups, reuters_r8
from sealign.errors import InvalidInputError

pytest.importorskip("matplotlib", reason="needs the extra `evaluate`")

_CHARACTERS = 120
_TOPICS = ("earn", "acq", "crude")

SPEC = """
n = 300
sizes = [150]
seeds = [0, 1]
few_shot = [8]
exposure = "exposure.txt"

[encoders]
minilm = "transformers:{minilm}?threads=1&device=cpu&max_length=32&long_texts=truncate"
use = "use:?max_length=32&long_texts=truncate"

[[pairs]]
client = "minilm"
silo = "use"

[synthetic]
epsilon = 8.0
count = 20
public = "general:200"

[datasets.topics]
train = "train.tsv"
test = "test.tsv"
outliers = "outliers.txt"
max_test = 30
description = "Newswire by topic."

[public.posts]
file = "posts.txt"
words = 12

[public.newswire]
file = "newswire.txt"

[public.both]
union = ["posts", "newswire"]
"""

Write = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def evaluation_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with spec.toml and all that it names."""
    try:
        minilm = all_minilm()
        documents, posts = reuters_r8("train"), newsgroups("train")
    except InvalidInputError as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("evaluation")
    by_topic = {topic: [row for row in documents if row.label == topic] for topic in _TOPICS}
    train = [row for rows in by_topic.values() for row in (*rows[:40], *rows[52:57])]
    test = [row for rows in by_topic.values() for row in rows[40:52]]
    for name, rows in (("train", train), ("test", test)):
        _write(directory / f"{name}.tsv", ["label\ttext", *(f"{row.label}\t{_cut(row)}" for row in rows)])
    newswire = [row for row in documents if row.label in ("trade", "grain", "ship", "money-fx", "interest")][:220]
    for name, rows in (
        ("newswire", newswire),
        ("posts", posts[:130]),
        ("outliers", posts[210:235]),
        ("exposure", posts[240:260]),
    ):
        _write(directory / f"{name}.txt", list(dict.fromkeys(map(_cut, rows))))
    (directory / "spec.toml").write_text(SPEC.format(minilm=minilm), encoding="utf-8")
    return directory


@pytest.fixture
def changed_spec(evaluation_texts: Path) -> Write:
    """Write the spec with a part replaced; returns its path."""

    def write(part: str, by: str) -> Path:
        text = (evaluation_texts / "spec.toml").read_text(encoding="utf-8")
        assert part in text
        path = evaluation_texts / "changed.toml"
        path.write_text(text.replace(part, by), encoding="utf-8")
        return path

    return write


def _cut(row: LabelledText) -> str:
    return " ".join(row.text[:_CHARACTERS].split())


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
