"""What is measured of a classifier's outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sealign.heads import auroc, fpr_at_95
from sealign.lab.evaluation.classifier import Classifier, Matrix
from sealign.lab.evaluation.context import Rows
from sealign.lab.evaluation.encrypted import encrypted_outputs
from sealign.lab.evaluation.results import ROC_POINTS, Confusion, Encrypted, MethodResult, Ood

_CONFUSIONS = 10


def answers(classifier: Classifier, outputs: Matrix) -> NDArray[np.str_]:
    """The label of the largest logit of each row, (n,)."""
    given: NDArray[np.str_] = np.asarray(classifier.labels)[classifier.logits(outputs).argmax(axis=1)]
    return given


def accuracy(classifier: Classifier, outputs: Matrix, labels: Sequence[str]) -> float:
    """Share of rows whose largest logit is the right one."""
    return float(np.mean(answers(classifier, outputs) == np.asarray(labels)))


def measure(classifier: Classifier, outputs: Matrix, labels: Sequence[str], outliers: Matrix) -> MethodResult:
    """All measures in the clear, from outputs of test texts (n, C) and of outliers (m, C), m may be 0."""
    given, right = answers(classifier, outputs), np.asarray(labels)
    wrong = Counter(zip(right[given != right].tolist(), given[given != right].tolist(), strict=True))
    return MethodResult(
        accuracy=float(np.mean(given == right)),
        recall={label: float(np.mean(given[right == label] == label)) for label in sorted(set(labels))},
        confusions=tuple(
            Confusion(label=label, taken_for=other, count=count)
            for (label, other), count in wrong.most_common(_CONFUSIONS)
        ),
        ood=_ood(classifier, outputs, outliers),
        promised=None if classifier.promise is None else classifier.promise.accuracy,
        margin=None if classifier.promise is None else classifier.promise.margin,
        kept=kept(classifier, outputs),
    )


def measure_encrypted(
    classifier: Classifier, X: Rows, labels: Sequence[str], outliers: Rows, examples: int
) -> Encrypted:
    """The same through the encrypted path, for at most so many of the test texts and as many outliers.

    Args:
        classifier: what to measure.
        X: the client's embeddings of test texts, (n, d).
        labels: theirs.
        outliers: the client's embeddings of outliers, (m, d), m may be 0.
        examples: which are drawn without regard to their order.
    """
    chosen = np.random.default_rng(0).permutation(len(X))[:examples]
    X, right = X[chosen], [labels[row] for row in chosen]
    outliers = outliers[np.random.default_rng(0).permutation(len(outliers))[:examples]]
    both = encrypted_outputs(classifier, np.concatenate([X, outliers]))
    clear, outputs = classifier.outputs(X), both[: len(X)]
    return Encrypted(
        examples=len(X),
        accuracy=accuracy(classifier, outputs, right),
        clear_accuracy=accuracy(classifier, clear, right),
        agreement=float(np.mean(answers(classifier, outputs) == answers(classifier, clear))),
        largest_error=float(np.abs(outputs - clear).max()),
        ood=_ood(classifier, outputs, both[len(X) :]),
    )


def _ood(classifier: Classifier, outputs: Matrix, outliers: Matrix) -> dict[str, Ood]:
    if not len(outliers):
        return {}
    result = {}
    for name, score in classifier.scores.items():
        inside, outside = score(outputs), score(outliers)
        threshold = classifier.thresholds.get(name)
        result[name] = Ood(
            auroc=auroc(inside, outside),
            fpr95=fpr_at_95(inside, outside),
            kept=None if threshold is None else float(np.mean(inside >= threshold)),
            roc=_roc(inside, outside),
        )
    return result


def kept(classifier: Classifier, outputs: Matrix) -> float | None:
    """Share of the rows at or above the threshold of the first score that has one, by which a client decides."""
    deciding = next((name for name in classifier.scores if name in classifier.thresholds), None)
    if deciding is None:
        return None
    return float(np.mean(classifier.scores[deciding](outputs) >= classifier.thresholds[deciding]))


def _roc(inside: Matrix, outside: Matrix) -> tuple[float, ...]:
    """Share of inliers above the thresholds that no more than these shares of outliers exceed."""
    thresholds = np.quantile(outside, [1 - rate for rate in ROC_POINTS[:-1]], method="higher")
    return (*(round(float(np.mean(inside > threshold)), 4) for threshold in thresholds), 1.0)
