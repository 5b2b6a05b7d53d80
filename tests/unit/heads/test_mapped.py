from __future__ import annotations

import numpy as np
import pytest

from sealign.errors import InvalidInputError
from sealign.heads import CalibratedHead, ClassStatistics, LinearHead, head_behind, train_head
from sealign.heads.mapped import SHRINKAGES

from .planted import CLASSES, DIMENSION, Planted

PLANTED = Planted()
CHANNEL, _ = PLANTED.channel(noise=6.0)


def fitted(directions: int = 0, seed: int = 1, rows: int = 300) -> CalibratedHead:
    held, labels = PLANTED.rows(rows, seed)
    statistics = ClassStatistics.of(*PLANTED.rows(2000, 2), CLASSES)
    own = train_head(*PLANTED.rows(2000, 2)).head
    return head_behind(CHANNEL, own, held, labels, statistics, directions=directions)


def accuracy(head: LinearHead, seed: int) -> float:
    rows, labels = PLANTED.rows(20_000, seed)
    answers = np.array(head.labels)[head.logits(CHANNEL.apply(rows, seed)).argmax(axis=1)]
    return float(np.mean(answers == np.array(labels)))


def test_it_is_better_behind_a_blurring_map_than_the_own_head_and_says_how_good_it_is() -> None:
    chosen = fitted()
    own = train_head(*PLANTED.rows(2000, 2)).head
    assert chosen.shrinkage in SHRINKAGES
    assert accuracy(chosen.head.head, 11) > accuracy(own, 11) + 0.02
    assert chosen.accuracy == pytest.approx(accuracy(chosen.head.head, 11), abs=0.05)
    assert chosen.temperature == pytest.approx(1.0, abs=0.02)


def test_thresholds_keep_95_percent() -> None:
    chosen = fitted(directions=3)
    assert chosen.head.layout.outputs == 6
    scores = chosen.head.layout.scores(chosen.head.outputs(CHANNEL.apply(PLANTED.rows(20_000, 12)[0], 3)))
    assert list(chosen.ood) == list(scores)
    for name, threshold in chosen.ood.items():
        assert 0.92 <= np.mean(scores[name] >= threshold) <= 0.98, name


def test_a_head_that_is_better_is_kept() -> None:
    """The labels are no Gaussian classes: a head that knows the rule beats every discriminant."""
    random = np.random.default_rng(0)

    def rule(rows: np.typing.NDArray[np.float64]) -> list[str]:
        return ["a" if row[0] > 3.5 else "b" for row in rows]

    own = LinearHead(np.outer(np.eye(DIMENSION)[0], [40.0, 0.0]), np.array([-140.0, 0.0]), ("a", "b"))
    clear, _ = PLANTED.channel(noise=0.01)
    held, train = (2.0 + 2.0 * random.standard_t(2.2, size=(2000, DIMENSION)) for _ in range(2))
    chosen = head_behind(clear, own, held, rule(held), ClassStatistics.of(train, rule(train), ("a", "b")))
    assert chosen.shrinkage is None
    assert chosen.head.head is own
    assert not chosen.head.layout.reject


def test_without_statistics_the_own_head_is_calibrated() -> None:
    held, labels = PLANTED.rows(400, 1)
    own = train_head(*PLANTED.rows(2000, 2)).head
    chosen = head_behind(CHANNEL, own, held, labels, directions=3)
    assert chosen.head.head is own
    assert chosen.head.layout.outputs == 3
    assert chosen.temperature > 1.2


def test_unknown_labels_and_wrong_shapes() -> None:
    own = train_head(*PLANTED.rows(200, 2)).head
    with pytest.raises(InvalidInputError, match="not classes of the head"):
        head_behind(CHANNEL, own, np.zeros((2, DIMENSION)), ["a", "z"])
    with pytest.raises(InvalidInputError, match="channel takes"):
        head_behind(CHANNEL, own, np.zeros((2, DIMENSION + 1)), ["a", "b"])
