"""Whether a head that was trained elsewhere fits the embeddings that it is served on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealign.errors import InvalidInputError
from sealign.heads.discriminant import ClassStatistics, discriminant_head
from sealign.heads.linear import LinearHead, checked_rows, class_indices
from sealign.heads.training import stratified_hold_out

_ROWS = 4000
"""Enough for an accuracy to a percent; few enough for a second of work."""
_HELD_OUT = 0.3
_SHRINKAGE = 0.1
_HALF_WAY = 0.5


def require_fitting(head: LinearHead, embeddings: ArrayLike, labels: Sequence[str], *, seed: int = 0) -> float:
    """Return a head's balanced accuracy on labelled embeddings, once it is known to have been trained on such ones.

    Balanced accuracy is the mean over classes of the share of their rows that is labelled rightly, so that a rare class
    counts as much as a common one. A head is refused at chance, or if it gains less than half of what a head fitted
    here to other rows gains over chance. Where the weight's numbers fit when they are read in
    the other order, the error says so: safetensors writes Fortran-ordered arrays, as scikit-learn's ``coef_`` often is,
    without putting them in order.

    Args:
        head: imported.
        embeddings: (n, dimension).
        labels: one per row, each a class of the head.
        seed: of the rows that are drawn.

    Raises:
        InvalidInputError: the head does not fit, or shapes and labels that do not belong together.
    """
    x = checked_rows(embeddings)
    targets = class_indices(labels, head.labels, len(x))
    tested, reference = _reference(head, x, targets, seed)
    x, targets = x[tested], targets[tested]
    chance = 1 / len(np.unique(targets))
    found = _accuracy(head, x, targets)
    if found > chance and found - chance >= _HALF_WAY * (reference - chance):
        return found
    turned = _accuracy(_turned(head), x, targets)
    advice = (
        f"read in the other order its weight is right for {turned:.1%}: it was saved from a Fortran-ordered array. "
        "Save it with sealign.heads.export_sklearn, or with numpy.ascontiguousarray"
        if turned > found and turned - chance >= _HALF_WAY * (reference - chance)
        else "check that it was trained on embeddings of the silo's own encoder, with the same prompt and pooling, and "
        "that its labels are in the order of its outputs"
    )
    raise InvalidInputError(
        f"the imported head is right for {found:.1%} of {len(x)} labelled texts (mean over classes; chance is "
        f"{chance:.1%}, and a head fitted here reaches {max(reference, chance):.1%}). It is not served; {advice}"
    )


def _reference(
    head: LinearHead, x: NDArray[np.float64], targets: NDArray[np.intp], seed: int
) -> tuple[NDArray[np.intp], float]:
    """The rows to test on, and the accuracy there of a head fitted to other rows; 0 where classes are too small."""
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(x))[:_ROWS])
    present = np.unique(targets[rows])
    counts = np.bincount(targets[rows], minlength=len(head.labels))
    if len(present) < 2 or counts[present].min() < 2:
        return rows, 0.0
    names = [head.labels[number] for number in present]
    local = np.searchsorted(present, targets[rows])
    held = stratified_hold_out(local, names, _HELD_OUT, seed)
    statistics = ClassStatistics.of(x[rows][~held], [names[number] for number in local[~held]], names)
    fitted = discriminant_head(statistics, _SHRINKAGE).head
    return rows[held], _accuracy(fitted, x[rows][held], local[held])


def _accuracy(head: LinearHead, x: NDArray[np.float64], targets: NDArray[np.intp]) -> float:
    right = head.logits(x).argmax(axis=1) == targets
    return float(np.mean([right[targets == number].mean() for number in np.unique(targets)]))


def _turned(head: LinearHead) -> LinearHead:
    """The head whose weight (classes, dimension) was read in the other order."""
    stored = np.ascontiguousarray(head.weight.T)
    return LinearHead(stored.ravel().reshape(stored.shape, order="F").T, head.bias, head.labels)
