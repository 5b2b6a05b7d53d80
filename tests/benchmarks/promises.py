"""Measures what a silo promises of a head behind a map against what happens to a client's texts.

    python -m tests.benchmarks.promises [CACHE] [tasks=trec,r8] [public=wiki] [outliers=shipped] [--without-names]

Six tasks, all-MiniLM-L6-v2 and Google USE each as client and as silo, two or three public sets; names of labels join
them. A line per cell says: accuracy of the silo's own encoder, of its trained head behind the map, of the fitted one,
of the one that is served; the promise; in-distribution texts kept and others kept at the deciding threshold. Test sets
differ from training sets, natively too: TREC's is easier by five points. So ``unseen`` is the accuracy of what is
served on rows of the training set that the silo did not train on, where there are some. Embeddings are cached in CACHE.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.demo import data
from sealign.alignment import AffineMap, RidgeStatistics, fit_ridge, shared_names, weigh_shared
from sealign.encoders import EncoderSettings, load_encoder
from sealign.heads import (
    LinearHead,
    ServedHead,
    TaskProfile,
    TrainedHead,
    auroc,
    discriminant_head,
    head_behind,
    measure_task,
    train_head,
)
from sealign.labelled import read_labelled
from sealign.shipped import outlier_texts

Rows = NDArray[np.float32]

SHARED = Path(__file__).parents[3] / "shared" / "data"
ENCODERS = {"minilm": "transformers:{}?threads=1&device=cpu&max_length=128", "use": "use:?max_length=64"}
PAIRS = (("minilm", "use"), ("use", "minilm"))
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
TRAINING_ROWS, TEST_ROWS = 3000, 1000
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
            "train": {"trec": 4000, "subj": 3000, "clinc": 6000},
            "test": {"trec": 500, "subj": 1000, "clinc": 1500},
        }
        return _file(task.replace("clinc", "clinc150"), split, counts[split][task])
    read = data.reuters_r8 if task == "r8" else data.newsgroups
    count = TRAINING_ROWS if split == "train" else TEST_ROWS
    return _shuffled([(row.text, row.label) for row in read("train" if split == "train" else "test")], count)


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the sets, cached in a directory."""

    directory: Path

    def __hash__(self) -> int:
        return hash(self.directory)

    @lru_cache(None)  # noqa: B019 - lives as long as the program
    def of(self, name: str, encoder: str) -> Rows:
        """Return the embeddings of a set."""
        path = self.directory / f"{name}.{encoder}.npy"
        if not path.exists():
            np.save(path, self._encoder(encoder)([text for text, _ in texts(name)]))
        return np.asarray(np.load(path), dtype=np.float32)

    def of_texts(self, what: list[str], encoder: str) -> Rows:
        """Return the embeddings of a few texts."""
        return np.asarray(self._encoder(encoder)(what), dtype=np.float32)

    @lru_cache(None)  # noqa: B019
    def _encoder(self, name: str):  # type: ignore[no-untyped-def]
        named = EncoderSettings.parse(ENCODERS[name].format(data.all_minilm()))
        return partial(load_encoder(named).encode, long_texts="truncate")


@dataclass(frozen=True)
class Cell:
    """A task at a silo, and a public set."""

    embeddings: Embeddings
    task: str
    public: str
    client: str
    silo: str

    def statistics(self, public: str) -> RidgeStatistics:
        """Return those of a public set."""
        X, Y = (self.embeddings.of(public, side) for side in (self.client, self.silo))
        statistics = RidgeStatistics(X.shape[1], Y.shape[1])
        statistics.update(X, Y)
        return statistics

    def with_names(self, labels: tuple[str, ...]) -> AffineMap:
        """Return the map once names of labels have joined the public texts."""
        named = shared_names(labels)
        if not named:
            return fit(self.statistics(self.public))
        X, Y = (self.embeddings.of_texts(list(named), side) for side in (self.client, self.silo))
        few = RidgeStatistics(X.shape[1], Y.shape[1])
        few.update(X, Y)
        return fit(weigh_shared(self.statistics(self.public), few)[0])


def fit(statistics: RidgeStatistics) -> AffineMap:
    """Return the ridge map."""
    return fit_ridge(statistics, source_fingerprint="client", target_fingerprint="silo", public_set="public")


@lru_cache(None)
def trained(embeddings: Embeddings, task: str, silo: str) -> tuple[TrainedHead, Rows, tuple[str, ...]]:
    """Return the silo's head, its rows and their labels."""
    rows = embeddings.of(f"{task}_train", silo)[:TRAINING_ROWS]
    labels = tuple(label for _, label in texts(f"{task}_train"))[:TRAINING_ROWS]
    return train_head(rows, labels), rows, labels


@lru_cache(None)
def profile_of(embeddings: Embeddings, task: str, silo: str, outliers: str) -> TaskProfile:
    """Return the profile of a task with a set of outliers."""
    head, rows, labels = trained(embeddings, task, silo)
    penalties = [head.penalty or 1e-3]

    def train(some: NDArray[np.float64], named: Sequence[str]) -> LinearHead:
        return train_head(some, named, classes=head.head.labels, penalties=penalties).head

    return measure_task(
        rows,
        labels,
        head.head,
        train,
        outliers=embeddings.of(outliers, silo),
        directions=8,
    )


def measure(cell: Cell, outliers: str, names: bool) -> dict[str, float]:
    """Return the figures of a cell."""
    of, task = cell.embeddings, cell.task
    head = trained(of, task, cell.silo)[0].head
    wanted = [label for _, label in texts(f"{task}_test")]
    known = np.array([label in head.labels for label in wanted])
    targets = np.array([head.labels.index(label) for label in wanted if label in head.labels])
    learned = cell.with_names(head.labels) if names else fit(cell.statistics(cell.public))
    far = TASKS[task]
    mapped, other = (
        learned.apply(of.of(name, cell.client)) for name in (f"{task}_test", far if far == "oos" else f"{far}_test")
    )
    mapped = mapped[known]
    profile = profile_of(of, task, cell.silo, outliers)
    assert learned.channel is not None
    served = head_behind(learned.channel, head, profile, directions=8)

    def right(some: ServedHead, rows: NDArray[np.float64]) -> float:
        return float(np.mean(some.head.logits(rows).argmax(axis=1) == targets))

    fitted = partial(discriminant_head, shrinkage=profile.shrinkage)
    found = {
        "native": right(ServedHead(head), of.of(f"{task}_test", cell.silo)[known].astype(np.float64)),
        "trained": right(ServedHead(head), mapped),
        "fitted": right(fitted(profile.statistics.through(learned.channel)), mapped),
        "served": right(served.head, mapped),
        "promised": served.accuracy or np.nan,
        "margin": served.margin or np.nan,
        "is fitted": served.fitted,
    }
    inside, outside = (served.head.layout.scores(served.head.outputs(rows)) for rows in (mapped, other))
    deciding = next(iter(inside))
    found["auroc"] = auroc(inside[deciding], outside[deciding])
    threshold = served.ood.get(deciding, np.nan)
    found["kept"] = float(np.mean(inside[deciding] >= threshold)) if served.ood else np.nan
    found["others kept"] = float(np.mean(outside[deciding] >= threshold)) if served.ood else np.nan
    rest = [label for _, label in texts(f"{task}_train")][TRAINING_ROWS:]
    rows = [row for row, label in enumerate(rest) if label in head.labels]
    found["unseen"] = np.nan
    if rows:
        unseen = learned.apply(of.of(f"{task}_train", cell.client)[TRAINING_ROWS:][rows])
        answers = served.head.head.logits(unseen).argmax(axis=1)
        found["unseen"] = float(np.mean(answers == [head.labels.index(rest[row]) for row in rows]))
    return found


def main(arguments: list[str]) -> None:
    """Print a line per cell, and means."""
    places = [item for item in arguments if not item.startswith("--") and "=" not in item]
    options = dict(item.split("=", 1) for item in arguments if "=" in item)
    directory = Path(places[0]) if places else Path(tempfile.gettempdir()) / "sealign-promises"
    directory.mkdir(exist_ok=True)
    of, found = Embeddings(directory), []
    for task in options.get("tasks", ",".join(TASKS)).split(","):
        for client, silo in PAIRS:
            for public in options.get("public", ",".join(PUBLIC)).split(","):
                figures = measure(
                    Cell(of, task, public, client, silo),
                    options.get("outliers", "shipped"),
                    "--without-names" not in arguments,
                )
                found.append(figures)
                line = json.dumps({name: round(float(value), 3) for name, value in figures.items()})
                print(f"{task} {public} {client}→{silo} {line}", flush=True)
    for what in ("served", "unseen"):
        errors = np.array([one["promised"] - one[what] for one in found if np.isfinite(one[what])])
        margins = np.array([one["margin"] for one in found if np.isfinite(one[what])])
        if len(errors):
            print(
                f"promised less {what}, {len(errors)} cells: mean {errors.mean():+.3f}, mean absolute "
                f"{np.abs(errors).mean():.3f}, from {errors.min():+.3f} to {errors.max():+.3f}, root mean square "
                f"{np.sqrt(np.mean(errors**2)):.3f}; within the margin {np.mean(np.abs(errors) <= margins):.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
