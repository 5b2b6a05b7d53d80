"""The texts of an evaluation: read, checked and cut to size before anything is embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np

from sealign.alignment import PublicSet, shared_names
from sealign.errors import InvalidInputError
from sealign.lab.evaluation.spec import DatasetSpec, EvaluationSpec, PairSpec
from sealign.labelled import read_labelled
from sealign.shipped import general_texts, outlier_texts

_UNSEEN_SHARE, _UNSEEN_MOST = 10, 500
"""One in so many rows of a training file is held back to measure promises by, at most so many."""

Row = TypeVar("Row")
Texts = tuple[str, ...]


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and, for each, its label."""

    texts: Texts
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """What a pair is measured on.

    Attributes:
        train: what the silo trains on; with labels.
        unseen: rows of the same file that it does not train on, of labels that it knows; with labels.
        test: the client's texts; labels serve to measure only.
        outliers: texts of another kind; may be empty.
        exposure: texts of another kind than the task's, for outlier exposure.
        description: of the task, as published; may be empty.
        names: of the labels, as a silo shares them; none if no name is in words.
    """

    train: LabelledTexts
    unseen: LabelledTexts
    test: LabelledTexts
    outliers: Texts
    exposure: Texts
    description: str
    names: Texts


def cap(rows: Sequence[Row], most: int) -> tuple[Row, ...]:
    """At most so many of the rows, always the same ones, in their order."""
    if len(rows) <= most:
        return tuple(rows)
    return tuple(rows[index] for index in np.sort(np.random.default_rng(0).permutation(len(rows))[:most]))


def draw(rows: Sequence[Row], most: int, seed: int) -> tuple[Row, ...]:
    """At most so many of the rows in a random order; fewer are the first of more."""
    return tuple(rows[index] for index in np.random.default_rng(seed).permutation(len(rows))[:most])


def _labelled(rows: Sequence[tuple[str, str]]) -> LabelledTexts:
    return LabelledTexts(tuple(text for _, text in rows), tuple(label for label, _ in rows))


def digest(*groups: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of groups of texts; each group's and text's length goes in before it."""
    sha = sha256()
    for group in groups:
        sha.update(len(group).to_bytes(8, "little"))
        for text in group:
            encoded = text.encode("utf-8", "surrogatepass")
            sha.update(len(encoded).to_bytes(8, "little") + encoded)
    return sha.hexdigest()


class Corpus:
    """All texts of a spec.

    Raises:
        NotFoundError, StorageError: a file is missing or cannot be read.
        InvalidInputError: a bad line; a test label that no training text has, or a class with fewer than two; public
            texts that are also test texts, or too few of them; with the key of the spec.
    """

    def __init__(self, spec: EvaluationSpec) -> None:
        self._spec = spec
        self._files: dict[Path, tuple[tuple[str, str], ...]] = {}
        self._lines: dict[Path, Texts] = {}
        self._datasets = {
            (pair.name, name): self._dataset(pair, name, dataset)
            for name, dataset in spec.datasets.items()
            for pair in spec.pairs
        }
        self._pools = {(pair.name, name): self._pool(pair, name) for name in spec.public for pair in spec.pairs}
        self._check()

    def dataset(self, pair: PairSpec, name: str) -> Dataset:
        """A dataset as a pair is measured on it."""
        return self._datasets[pair.name, name]

    def public(self, pair: PairSpec, name: str, seed: int) -> Texts:
        """The public texts that a seed draws for a pair; fewer texts are the first of these."""
        return draw(self._pools[pair.name, name], pair.n or self._spec.n, seed)

    def few_shot(self, pair: PairSpec, dataset: str, seed: int) -> Texts:
        """As many of the training texts as the largest few-shot count; fewer texts are the first of these."""
        return draw(self.dataset(pair, dataset).train.texts, max(self._spec.few_shot, default=0), seed)

    def _dataset(self, pair: PairSpec, name: str, spec: DatasetSpec) -> Dataset:
        limit = pair.max_train.get(name, pair.max_train.get("default", spec.max_train))
        train, unseen = self._divided(spec.train, min(limit, spec.max_train))
        test = self._capped(spec.test, min(pair.max_test or spec.max_test, spec.max_test))
        few = sorted(label for label, count in Counter(train.labels).items() if count < 2)
        where = f"datasets.{name}, pair {pair.name}"
        if few or len(set(train.labels)) < 2:
            raise InvalidInputError(
                f"{where}: of {len(train.labels)} training texts fewer than two are of class {few[:5]}, or there is "
                "one class only; raise max_train or leave the class out"
            )
        unknown = sorted(set(test.labels) - set(train.labels))
        if unknown:
            raise InvalidInputError(f"{where}: test labels that no training text has: {unknown[:10]}")
        if max(self._spec.few_shot, default=0) > len(train.texts):
            raise InvalidInputError(f"few_shot: there are only {len(train.texts)} training texts of {where}")
        outliers = self._plain(spec.outliers)
        given = spec.exposure or self._spec.exposure
        exposure = outlier_texts() if given is None else self._plain(given)
        return Dataset(
            train,
            unseen,
            test,
            outliers=cap(cap(outliers, spec.max_outliers), pair.max_outliers or len(outliers)),
            exposure=cap(cap(exposure, self._spec.max_exposure), pair.max_exposure or len(exposure)),
            description=spec.description,
            names=shared_names(sorted(set(train.labels))),
        )

    def _pool(self, pair: PairSpec, name: str) -> Texts:
        spec = self._spec.public[name]
        if spec.union:
            joined = dict.fromkeys(text for part in spec.union for text in self._pool(pair, part))
            return cap(tuple(joined), spec.max_texts * len(spec.union))
        lines = self._plain(spec.file) if spec.shipped is None else general_texts()
        if spec.words is not None:
            lines = tuple(dict.fromkeys(" ".join(line.split()[: spec.words]) for line in lines))
        return cap(cap(lines, spec.max_texts), pair.max_public or spec.max_texts)

    def _capped(self, path: Path, most: int) -> LabelledTexts:
        return _labelled(cap(self._rows(path), most))

    def _divided(self, path: Path, most: int) -> tuple[LabelledTexts, LabelledTexts]:
        """At most so many rows of a training file, and some of the others."""
        rows = self._rows(path)
        count = min(len(rows) // _UNSEEN_SHARE, _UNSEEN_MOST)
        most = min(most, len(rows) - count)
        train = _labelled(cap(rows, most))
        others = np.random.default_rng(0).permutation(len(rows))[most : most + count]
        labels, texts = set(train.labels), set(train.texts)
        unseen = [rows[index] for index in others if rows[index][0] in labels and rows[index][1] not in texts]
        return train, _labelled(unseen)

    def _rows(self, path: Path) -> tuple[tuple[str, str], ...]:
        """Labels and texts of a file."""
        if path not in self._files:
            self._files[path] = tuple(zip(*read_labelled(path), strict=True))
        return self._files[path]

    def _plain(self, path: Path | None) -> Texts:
        """Distinct texts of a TSV file, or lines of any other; none of no file."""
        if path is None:
            return ()
        if path not in self._lines:
            if path.suffix == ".tsv":
                self._lines[path] = tuple(dict.fromkeys(read_labelled(path)[1]))
            else:
                self._lines[path] = PublicSet.from_file(path).texts
        return self._lines[path]

    def _check(self) -> None:
        for (pair, public), pool in self._pools.items():
            if len(pool) < 20:
                raise InvalidInputError(f"public.{public}: {len(pool)} texts are too few for pair {pair}; give 20")
            for name in self._spec.datasets:
                both = len(set(pool) & set(self._datasets[pair, name].test.texts))
                if both:
                    raise InvalidInputError(
                        f"public.{public}: {both} of its texts are in datasets.{name}.test, where they would be "
                        "measured on what they were aligned over; leave them out of one"
                    )
