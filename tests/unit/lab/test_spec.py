"""Specs that cannot be run are refused before any model is loaded, with the key that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealign.errors import InvalidInputError, NotFoundError, SealignError
from sealign.lab.evaluation.selection import Selection
from sealign.lab.evaluation.spec import EvaluationSpec
from sealign.lab.evaluation.texts import Corpus, cap, draw
from sealign.shipped import general_texts

from .conftest import Write


def _load(path: Path) -> tuple[EvaluationSpec, Corpus]:
    spec = EvaluationSpec.load(path)
    Selection(spec)
    return spec, Corpus(spec)


@pytest.mark.parametrize(
    ("part", "by", "message"),
    [
        ("n = 300", "n = sixty", "not TOML"),
        ("n = 300", "n = 5", "n: Input should be greater"),
        ("n = 300", "colour = 5", "colour: Extra inputs"),
        ('client = "minilm"', 'client = "bert"', r"pairs.0.client: there is no 'bert' among minilm, use"),
        ("seeds = [0, 1]", "seeds = []", "seeds"),
        ("seeds = [0, 1]", "seeds = [1, 1]", "seeds: a number occurs twice"),
        ("seeds = [0, 1]", 'methods = ["magic"]', "methods: there is no 'magic' among native"),
        ("seeds = [0, 1]", 'curve = ["magic"]', "curve: there is no 'magic'"),
        ('union = ["posts", "newswire"]', 'union = ["posts", "news"]', "public.both.union: there is no 'news'"),
        ('union = ["posts", "newswire"]', 'union = ["posts", "both"]', "public.both.union: there is no 'both'"),
        ('union = ["posts", "newswire"]', 'union = ["posts"]', "public.both: .*give either"),
        ('file = "newswire.txt"', 'file = "newswire.txt"\nshipped = "general"', "public.newswire: .*give either"),
        ('file = "newswire.txt"', 'shipped = "wikipedia"', "public.newswire.shipped: Input should be 'general'"),
        ('silo = "use"', 'silo = "use"\nmax_train = {news = 9}', "pairs.0.max_train: there is no 'news'"),
        ('silo = "use"', 'silo = "use"\n[[pairs]]\nclient = "minilm"\nsilo = "use"', "minilm-use occurs twice"),
        ("max_test = 30", "max_train = 3", "raise max_train"),
        ("few_shot = [8]", "few_shot = [123]", "few_shot: there are only 122"),
        ('train = "train.tsv"', 'train = "posts.txt"', "posts.txt: line 1 must be the header"),
        ('file = "newswire.txt"', 'file = "few.txt"', "public.newswire: 2 texts are too few"),
        ('file = "newswire.txt"', 'file = "twice.txt"', "twice.txt: line 3 repeats line 1"),
        ('file = "newswire.txt"', 'file = "test.tsv"', "public.newswire: 30 of its texts are in datasets.topics.test"),
        ('test = "test.tsv"', 'test = "other.tsv"', r"test labels that no training text has: \['sport'\]"),
    ],
)
def test_refused(evaluation_texts: Path, changed_spec: Write, part: str, by: str, message: str) -> None:
    (evaluation_texts / "few.txt").write_text("one\ntwo\n", encoding="utf-8")
    (evaluation_texts / "twice.txt").write_text("one\ntwo\none\n", encoding="utf-8")
    (evaluation_texts / "other.tsv").write_text("label\ttext\nsport\tthe match was drawn\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        _load(changed_spec(part, by))


@pytest.mark.parametrize("key", ["train.tsv", "test.tsv", "outliers.txt", "posts.txt", "exposure.txt"])
def test_missing_files(changed_spec: Write, key: str) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        _load(changed_spec(f'"{key}"', '"absent"'))


def test_no_spec(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no spec"):
        EvaluationSpec.load(tmp_path / "absent.toml")


def test_public_texts_may_be_those_that_ship(changed_spec: Write) -> None:
    spec, corpus = _load(changed_spec('file = "newswire.txt"', 'shipped = "general"'))
    texts = corpus.public(spec.pairs[0], "newswire", 0)
    assert len(texts) == 300
    assert set(texts) <= set(general_texts())


def test_draws_are_nested_and_repeatable(evaluation_texts: Path) -> None:
    spec, corpus = _load(evaluation_texts / "spec.toml")
    (pair,) = spec.pairs
    both = corpus.public(pair, "both", 0)
    assert len(both) == len(set(both)) == 300
    assert both == corpus.public(pair, "both", 0) != corpus.public(pair, "both", 1)
    assert all(len(text.split()) <= 12 for text in corpus.public(pair, "posts", 0))
    assert len(corpus.dataset(pair, "topics").test.texts) == 30
    assert set(corpus.few_shot(pair, "topics", 0)) <= set(corpus.dataset(pair, "topics").train.texts)
    rows = [str(number) for number in range(100)]
    assert draw(rows, 10, 3) == draw(rows, 20, 3)[:10]
    assert cap(rows, 10) == cap(rows, 10) == tuple(sorted(cap(rows, 10), key=int))
    assert cap(rows, 200) == tuple(rows)


def test_limits_of_a_pair(changed_spec: Write) -> None:
    limits = 'silo = "use"\nn = 35\nmax_public = 20\nmax_train = {default = 80}\nmax_test = 9\nmax_outliers = 4'
    spec, corpus = _load(changed_spec('silo = "use"', limits))
    (pair,) = spec.pairs
    dataset = corpus.dataset(pair, "topics")
    assert len(corpus.public(pair, "posts", 0)) == 20
    assert len(corpus.public(pair, "both", 0)) == 35
    assert (len(dataset.train.texts), len(dataset.test.texts), len(dataset.outliers)) == (80, 9, 4)


def test_selection(evaluation_texts: Path) -> None:
    spec = EvaluationSpec.load(evaluation_texts / "spec.toml")
    assert len(list(Selection(spec))) == 6
    some = Selection(spec, ["public=posts", "public=both", "seed=1", "method=ridge", "method=native"])
    assert [(item.public, item.seed) for item in some] == [("posts", 1), ("both", 1)]
    assert [method.name for method in some.methods] == ["native", "ridge"]
    for item, message in (("public=news", "there are posts, newswire, both"), ("news", "give pair|dataset")):
        with pytest.raises(SealignError, match=message):
            Selection(spec, [item])
