from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sealign.errors import InvalidInputError
from sealign.heads import LinearHead, export_sklearn, import_head, require_fitting

RANDOM = np.random.default_rng(0)
CLASSES, DIMENSION, ROWS = 4, 32, 800
_CENTRES = RANDOM.normal(size=(CLASSES, DIMENSION))
_TARGETS = RANDOM.integers(0, CLASSES, ROWS)
X = _CENTRES[_TARGETS] + RANDOM.normal(size=(ROWS, DIMENSION))
LABELS = [f"topic {number}" for number in _TARGETS]


def scrambled(estimator: Any, path: Path) -> LinearHead:
    """What safetensors makes of an array that is not in C order: the case that the exporter exists for."""
    weight = np.asfortranarray(estimator.coef_)
    save_file(
        {"weight": weight.T.reshape(weight.shape), "bias": estimator.intercept_},
        path,
        metadata={"labels": json.dumps(list(estimator.classes_))},
    )
    return import_head(path)


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=500), LinearSVC(), RidgeClassifier()])
def test_an_exported_estimator_decides_the_same(estimator: Any, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    estimator.fit(X, LABELS)
    export_sklearn(estimator, path)
    head = import_head(path)
    assert head.labels == tuple(estimator.classes_)
    np.testing.assert_array_equal(np.array(head.labels)[head.logits(X).argmax(axis=1)], estimator.predict(X))
    assert require_fitting(head, X, LABELS) > 0.9


def test_two_classes_and_other_names(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    estimator = LogisticRegression().fit(X, _TARGETS > 1)
    assert export_sklearn(estimator, path, ["low", "high"]).labels == import_head(path).labels == ("low", "high")
    np.testing.assert_array_equal(import_head(path).logits(X).argmax(axis=1), estimator.predict(X))


@pytest.mark.parametrize("source", [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression()), 7])
def test_what_is_no_fitted_classifier(source: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be exported"):
        export_sklearn(source, tmp_path / "head.safetensors")
    with pytest.raises(InvalidInputError, match=r"does not end in \.safetensors"):
        export_sklearn(LogisticRegression().fit(X, LABELS), tmp_path / "head.npz")


def test_a_scrambled_weight_is_refused_and_recognised(tmp_path: Path) -> None:
    head = scrambled(LogisticRegression(max_iter=500).fit(X, LABELS), tmp_path / "head.safetensors")
    with pytest.raises(InvalidInputError, match=r"read in the other order .* sealign\.heads\.export_sklearn"):
        require_fitting(head, X, LABELS)


def test_heads_of_other_embeddings_are_refused() -> None:
    labels = tuple(sorted(set(LABELS)))
    elsewhere = LinearHead(RANDOM.normal(size=(DIMENSION, CLASSES)), np.zeros(CLASSES), labels)
    constant = LinearHead(np.zeros((DIMENSION, CLASSES)), np.arange(CLASSES, dtype=np.float64), labels)
    good = import_head(LogisticRegression(max_iter=500).fit(X, LABELS))
    swapped = LinearHead(good.weight[:, ::-1], good.bias[::-1], labels)
    for head in (elsewhere, constant, swapped):
        with pytest.raises(InvalidInputError, match="It is not served; check that it was trained on embeddings"):
            require_fitting(head, X, LABELS)


def test_a_weak_head_and_few_rows_are_not_refused() -> None:
    few = import_head(LogisticRegression(C=1e-3).fit(X[:60], LABELS[:60]))
    assert require_fitting(few, X, LABELS) > 0.6
    good = import_head(LogisticRegression(max_iter=500).fit(X, LABELS))
    assert require_fitting(good, X[:6], LABELS[:6]) > 0.5


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    rare = [label if index % 40 == 0 else "topic 0" for index, label in enumerate(LABELS)]
    rows = np.where(np.array(rare)[:, None] == np.array(LABELS)[:, None], X, X[_TARGETS == 0][0] + 0.0 * X)
    head = import_head(LogisticRegression(max_iter=500).fit(rows, rare))
    assert require_fitting(head, rows, rare) > 0.5
