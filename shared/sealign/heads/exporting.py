"""Heads of other libraries as the files that a silo imports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sealign.errors import InvalidInputError
from sealign.files import save_arrays
from sealign.heads.importing import import_head
from sealign.heads.linear import LinearHead


def export_sklearn(estimator: object, path: str | Path, labels: Sequence[str] | None = None) -> LinearHead:
    """Write a fitted scikit-learn linear classifier as a safetensors file that ``sealign-server train --head`` reads.

    Args:
        estimator: has ``coef_``, ``intercept_`` and ``classes_``: LogisticRegression, LinearSVC, RidgeClassifier,
            SGDClassifier and their like.
        path: of the file, which ends in ``.safetensors``; an older file is replaced.
        labels: names of the classes, in the estimator's order; by default its classes.

    Returns:
        The head as it will be imported.

    Raises:
        InvalidInputError: no fitted linear classifier, other labels than its classes, or another file ending.
        StorageError: the file cannot be written.
    """
    if not (hasattr(estimator, "coef_") and hasattr(estimator, "classes_")):
        raise InvalidInputError(
            f"{type(estimator).__name__} cannot be exported; give a fitted scikit-learn linear classifier (of a "
            "pipeline, its last step, trained on the embeddings as they are)"
        )
    head = import_head(estimator, labels)
    export_head(head, path)
    return head


def export_head(head: LinearHead, path: str | Path) -> None:
    """Write a head as a safetensors file: ``weight`` (classes, dimension), ``bias``, and ``labels`` in the metadata.

    Raises:
        InvalidInputError: the file does not end in ``.safetensors``.
        StorageError: the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise InvalidInputError(f"{path} does not end in .safetensors, which is how it will be read; rename it")
    # save_arrays writes arrays in C order, whatever their order in memory; safetensors alone does not.
    save_arrays(Path(path), {"weight": head.weight.T, "bias": head.bias}, {"labels": json.dumps(head.labels)})
