"""Heads that were trained elsewhere: scikit-learn estimators, torch layers, safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealign.errors import InvalidInputError, NotFoundError
from sealign.files import load_arrays
from sealign.heads.linear import LinearHead

Matrix = NDArray[np.float64]

_PICKLES = frozenset({".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".ckpt"})


def import_head(source: object, labels: Sequence[str] | None = None) -> LinearHead:
    """A linear head from what other libraries call one.

    Args:
        source: one of

            - a fitted scikit-learn linear classifier (``coef_``, ``intercept_``, ``classes_``);
            - a torch module or state dict with one linear layer (weight (classes, dimension));
            - the path of a safetensors file with one ``weight`` and, optionally, its ``bias``.
              The bias says which side of the weight is the classes; where both fit, or there is
              none, torch's layout (classes, dimension) is meant. Nothing is ever unpickled.

            One output for two classes (z, positive for the second) becomes the logits (−z/2, z/2),
            whose softmax is the sigmoid of z.
        labels: names of the outputs, in order. Needed unless the estimator's classes, or a JSON
            list (or id2label object) under ``labels`` in the file's metadata, name them; where those are strings, the
            two must agree.

    Raises:
        NotFoundError: there is no such file.
        StorageError: a file that is damaged, not safetensors, or in numbers that numpy does not know.
        InvalidInputError: a source without exactly one linear layer, classes that do not match the
            labels, or a file that would have to be unpickled.
    """
    if isinstance(source, str | Path):
        return _from_file(Path(source), labels)
    if hasattr(source, "coef_") and hasattr(source, "classes_"):
        return _from_estimator(source, labels)
    state = source.state_dict() if hasattr(source, "state_dict") else source
    if isinstance(state, Mapping):
        return _from_state(state, labels, what="the state dict")
    raise InvalidInputError(
        f"a head cannot be imported from {type(source).__name__}; give a fitted scikit-learn linear "
        "classifier, a torch module or state dict, or the path of a safetensors file"
    )


def _from_estimator(estimator: Any, labels: Sequence[str] | None) -> LinearHead:
    classes = np.asarray(estimator.classes_)
    weight = np.atleast_2d(_numpy(estimator.coef_)).T
    intercept = _numpy(estimator.intercept_)
    # Without an intercept some estimators hold the scalar 0.
    bias = np.broadcast_to(intercept, weight.shape[1:]) if not intercept.ndim else intercept
    names = tuple(str(name) for name in classes)
    if labels is not None:
        if classes.dtype.kind in "UO" and tuple(labels) != names:
            raise InvalidInputError("the labels are not the estimator's classes, in its order")
        if len(labels) != len(names):
            raise InvalidInputError(f"{len(labels)} labels do not name {len(names)} classes")
        names = tuple(labels)
    return _head(weight, bias, names)


def _from_file(path: Path, labels: Sequence[str] | None) -> LinearHead:
    if path.suffix.lower() in _PICKLES:
        raise InvalidInputError(
            f"{path} is a pickle, which can run any code when read; save the head's weight and "
            "bias with safetensors instead"
        )
    if not path.exists():
        raise NotFoundError(f"There is no file {path}. Check the path.")
    arrays, metadata = load_arrays(path)
    if "labels" in metadata:
        named = _labels(metadata["labels"], path)
        if labels is not None and tuple(labels) != named:
            raise InvalidInputError(f"the labels are not those that {path} names, in its order")
        labels = named
    return _from_state(arrays, labels, what=str(path))


def _labels(stored: str, path: Path) -> tuple[str, ...]:
    """Names of the outputs: a JSON list, or the id2label or label2id of a transformers configuration."""
    try:
        named = json.loads(stored)
    except ValueError:
        named = None
    if isinstance(named, dict) and all(isinstance(number, int) for number in named.values()):
        named = {str(number): label for label, number in named.items()}
    if isinstance(named, dict) and set(named) == {str(number) for number in range(len(named))}:
        named = [named[str(number)] for number in range(len(named))]
    if not isinstance(named, list) or not all(isinstance(label, str | int) for label in named):
        raise InvalidInputError(
            f"{path}: metadata 'labels' is not a JSON list of names in the order of the outputs, nor an object that "
            "numbers them from 0; write the list"
        )
    return tuple(str(label) for label in named)


def _from_state(state: Mapping[str, Any], labels: Sequence[str] | None, *, what: str) -> LinearHead:
    weights = [key for key in state if key.rpartition(".")[2] == "weight"]
    if len(weights) != 1:
        raise InvalidInputError(f"{what} holds {len(weights)} weights; a linear head has exactly one, called 'weight'")
    weight = _numpy(state[weights[0]])
    bias_key = weights[0].removesuffix("weight") + "bias"
    extra = sorted(set(state) - {weights[0], bias_key})
    if extra or weight.ndim != 2:
        raise InvalidInputError(f"{what} is not one linear layer: weight of shape {weight.shape}, also {extra[:10]}")
    rows, columns = weight.shape
    bias = _numpy(state[bias_key]) if bias_key in state else np.zeros(rows)
    if bias.shape == (rows,):
        weight = weight.T
    elif bias.shape != (columns,):
        raise InvalidInputError(f"{what}: bias {bias.shape} does not fit weight {weight.shape}")
    if labels is None:
        raise InvalidInputError(
            f"{what} does not name its classes; store them in the file's metadata under 'labels', a JSON list in "
            "the order of the outputs (sealign.heads.export_sklearn does), or pass labels=[...] in Python"
        )
    return _head(weight, bias, tuple(labels))


def _head(weight: Matrix, bias: Matrix, labels: tuple[str, ...]) -> LinearHead:
    """A head of (dimension, outputs); one output for two labels becomes two."""
    if weight.shape[1] == 1 and len(labels) == 2:
        weight, bias = weight * [-0.5, 0.5], bias * [-0.5, 0.5]
    return LinearHead(weight, bias, labels)


def _numpy(tensor: Any) -> Matrix:
    """A torch tensor (any dtype, any device) or array as float64."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().double().numpy()
    try:
        return np.asarray(tensor, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError("the head's numbers are not a dense array of real numbers") from None
