"""What a task card says of a single private row, to a client that chooses its maps and asks as often as it likes.

A silo once measured thresholds behind a map on labelled embeddings. A threshold is then the score of one of them, and
how it moves with the map is that row: as many maps as there are dimensions give it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from sealign.alignment import MappedChannel
from sealign.heads import LinearHead, TaskProfile, head_behind, max_logit, measure_task, threshold_at_95, train_head

Matrix = NDArray[np.float64]
Card = Callable[[Matrix], float]
"""A number on the card, for the gain of a map that the client has chosen."""

DIMENSION, ROWS = 20, 400
CLASSES = ("a", "b", "c")
SMALL, LARGE = 1e-5, 0.05
"""Steps of the attacker: an exact figure wants a small one, a coarse figure one that it shows."""


class Silo:
    """A task whose rows differ from their classes' means in every direction, with heavy tails."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        means = np.random.default_rng(99).normal(size=(3, DIMENSION))
        self.targets = random.integers(3, size=ROWS)
        self.rows: Matrix = means[self.targets] + random.standard_t(5, size=(ROWS, DIMENSION))
        self.labels = [CLASSES[target] for target in self.targets]
        self.own = train_head(self.rows, self.labels)
        self.away: Matrix = (
            self.rows - np.array([self.rows[self.targets == k].mean(axis=0) for k in range(3)])[self.targets]
        )
        """What no class mean says of the rows."""

    def profile(self) -> TaskProfile:
        penalties = [self.own.penalty or 1.0]

        def train(rows: Matrix, labels: Sequence[str]) -> LinearHead:
            return train_head(rows, labels, classes=CLASSES, penalties=penalties).head

        return measure_task(
            self.rows,
            self.labels,
            self.own.head,
            train,
            outliers=np.random.default_rng(5).normal(size=(200, DIMENSION)) * 3,
        )


@lru_cache
def silos() -> tuple[Silo, Silo, TaskProfile]:
    """The silo, another one with a draw of its own, and the first one's profile."""
    silo = Silo(0)
    return silo, Silo(1), silo.profile()


def channel(gain: Matrix) -> MappedChannel:
    """The channel of a map that a client has registered: without noise, which is the worst case."""
    none = np.zeros((DIMENSION, DIMENSION))
    arrays = (np.zeros(DIMENSION), gain, none, np.eye(DIMENSION), none)
    return MappedChannel(*(array.astype(np.float32) for array in arrays))


def of_rows(gain: Matrix) -> float:
    """The threshold as it once was: an order statistic of mapped rows."""
    silo = silos()[0]
    return threshold_at_95(max_logit(silo.own.head.logits(channel(gain).apply(silo.rows).astype(np.float64))))


def of_profile(name: str) -> Card:
    def card(gain: Matrix) -> float:
        silo, _, profile = silos()
        served = head_behind(channel(gain), silo.own.head, profile)
        return float(served.accuracy or 0.0) if name == "accuracy" else served.ood.get(name, 0.0)

    return card


def reconstructed(card: Card, step: float, asked: int, seed: int = 1) -> Matrix:
    """The vector v, (d,), along which the figure moves when the map does, by least squares over random small changes.

    A change of the gain by step·e·uᵀ moves the score of a row y by step·(y·e) times a constant, if the row stays the
    one that the figure is of.
    """
    random = np.random.default_rng(seed)
    head = silos()[0].own.head.weight
    towards: Matrix = head.mean(axis=1) + head[:, 0]
    towards /= np.linalg.norm(towards)
    changes = random.normal(size=(asked, DIMENSION))
    base = np.eye(DIMENSION)
    moved = [card(base + step * np.outer(e, towards)) - card(base - step * np.outer(e, towards)) for e in changes]
    return np.asarray(np.linalg.lstsq(changes, np.array(moved) / (2 * step), rcond=None)[0], dtype=np.float64)


def cosines(vector: Matrix, rows: Matrix) -> Matrix:
    norm = np.linalg.norm(vector)
    if norm == 0:
        return np.zeros(len(rows))
    result: Matrix = np.abs(rows @ vector) / np.linalg.norm(rows, axis=1) / norm
    return result


def test_an_order_statistic_gives_a_row_away() -> None:
    """The attack works: 40 maps, and one labelled embedding is known."""
    silo = silos()[0]
    found = reconstructed(of_rows, SMALL, 40)
    assert cosines(found, silo.rows).max() > 0.99


@pytest.mark.parametrize("name", ["reject_margin", "max_softmax", "energy", "accuracy"])
@pytest.mark.parametrize("step", [SMALL, LARGE])
def test_a_card_says_no_more_of_its_rows_than_of_anybodys(name: str, step: float) -> None:
    """Rows that the silo has never seen, of the same kind, match what is found as well as its own."""
    silo, other, _ = silos()
    found = reconstructed(of_profile(name), step, 40)
    own, foreign = cosines(found, silo.away), cosines(found, other.away)
    assert own.max() < foreign.max() + 0.15
    assert own.mean() == pytest.approx(foreign.mean(), abs=0.03)


def test_asking_again_and_slightly_different_maps_average_nothing_away() -> None:
    """What noise there is was drawn once: repeats are equal, and neighbours move together."""
    silo, other, profile = silos()
    once = [dict(head_behind(channel(np.eye(DIMENSION)), silo.own.head, profile).ood) for _ in range(20)]
    assert all(one == once[0] for one in once)
    found = sum(reconstructed(of_profile("reject_margin"), LARGE, 30, seed) for seed in range(3))
    assert isinstance(found, np.ndarray)
    assert cosines(found, silo.away).max() < cosines(found, other.away).max() + 0.15


def test_a_profile_holds_no_rows() -> None:
    """Whatever is asked, the answer is a function of these numbers, of which none is of one row."""
    silo, _, profile = silos()
    measures = [profile.aurocs]
    for kind in (profile.fitted, profile.trained):
        measures += [kind.losses, kind.accuracies, kind.temperatures, *kind.tails.values()]
    assert all(array.shape == profile.fitted.losses.shape for array in measures)
    for matrix in (profile.statistics.means, profile.statistics.within):
        best = max(cosines(vector, silo.away).max() for vector in matrix)
        others = max(cosines(vector, silos()[1].away).max() for vector in matrix)
        assert best < others + 0.1


def test_the_profile_of_a_silo_without_the_row_is_drawn_from_the_same_noise() -> None:
    """The figures of two silos that differ by one row differ less than two draws for one silo.

    Folds and simulated noise once followed the order of rows. One row less then moved those of all others, and the
    figures by up to 2.4 standard deviations of the published noise.
    """
    silo = silos()[0]

    def accuracies(rows: slice) -> Matrix:
        drawn = [
            measure_task(silo.rows[rows], silo.labels[rows], silo.own.head, lambda *_: silo.own.head).fitted.accuracies
            for _ in range(8)
        ]
        return np.array(drawn)

    everybody, without = accuracies(slice(None)), accuracies(slice(1, None))
    difference = np.abs(everybody.mean(axis=0) - without.mean(axis=0)).mean()
    assert everybody.std(axis=0).mean() > 2 / ROWS
    assert difference < 1.5 * everybody.std(axis=0).mean()
