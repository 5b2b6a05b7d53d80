from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.linear_model import Ridge as RidgeRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sealign.errors import InvalidInputError, StorageError
from sealign.files import save_arrays
from sealign.heads import import_head, softmax

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 5))
THREE = np.array(["x", "y", "z"])[np.argmax(X[:, :3], axis=1)]
TWO = np.where(X[:, 0] > 0, "yes", "no")


def test_scikit_learn_probabilities_are_kept() -> None:
    for labels in (THREE, TWO):
        estimator = LogisticRegression().fit(X, labels)
        head = import_head(estimator)
        assert head.labels == tuple(estimator.classes_)
        np.testing.assert_allclose(softmax(head.logits(X)), estimator.predict_proba(X), atol=1e-12)


@pytest.mark.parametrize(
    "estimator",
    [RidgeClassifier(fit_intercept=False), SGDClassifier(random_state=0), RidgeClassifier()],
)
def test_scikit_learn_decisions_are_kept(estimator: RidgeClassifier) -> None:
    for labels in (THREE, TWO):
        estimator.fit(X, labels)
        head = import_head(estimator)
        predicted = np.array(head.labels)[head.logits(X).argmax(1)]
        np.testing.assert_array_equal(predicted, estimator.predict(X))


def test_numbered_classes_can_be_named() -> None:
    estimator = LogisticRegression().fit(X, np.unique(THREE, return_inverse=True)[1])
    assert import_head(estimator).labels == ("0", "1", "2")
    assert import_head(estimator, ["x", "y", "z"]).labels == ("x", "y", "z")
    with pytest.raises(InvalidInputError, match="2 labels do not name 3 classes"):
        import_head(estimator, ["x", "y"])


def test_named_classes_must_agree() -> None:
    estimator = LogisticRegression().fit(X, THREE)
    assert import_head(estimator, ["x", "y", "z"]).labels == ("x", "y", "z")
    for labels in (["x", "z", "y"], ["x", "y"]):
        with pytest.raises(InvalidInputError, match="not the estimator's classes"):
            import_head(estimator, labels)


def test_an_estimator_with_missing_classes() -> None:
    estimator = LogisticRegression().fit(X, THREE)
    estimator.coef_, estimator.intercept_ = estimator.coef_[:2], estimator.intercept_[:2]
    with pytest.raises(InvalidInputError, match="3 labels do not name 2 outputs"):
        import_head(estimator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_torch_layer(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(5, 3).to(dtype)
    with torch.no_grad():
        expected = layer.double()(torch.from_numpy(X)).numpy()
    layer.to(dtype)
    for source in (layer, layer.state_dict(), {f"head.{k}": v for k, v in layer.state_dict().items()}):
        np.testing.assert_allclose(import_head(source, ["x", "y", "z"]).logits(X), expected)


def test_torch_layer_without_bias_and_square() -> None:
    layer = torch.nn.Linear(5, 5, bias=False).double()
    head = import_head(layer, list("abcde"))
    np.testing.assert_allclose(head.logits(X), layer(torch.from_numpy(X)).detach().numpy())


def test_one_torch_output_for_two_classes() -> None:
    layer = torch.nn.Linear(5, 1).double()
    head = import_head(layer, ["no", "yes"])
    sigmoid = torch.sigmoid(layer(torch.from_numpy(X))).detach().numpy()[:, 0]
    np.testing.assert_allclose(softmax(head.logits(X))[:, 1], sigmoid)


@pytest.mark.parametrize(
    ("source", "labels", "message"),
    [
        (torch.nn.Linear(5, 3), None, "does not name its classes"),
        (torch.nn.Linear(5, 3), ["x", "y"], "2 labels do not name 3 outputs"),
        (torch.nn.Linear(5, 1), ["x"], "at least two classes"),
        (torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Linear(5, 3)), ["x"], "2 weights"),
        (torch.nn.Conv1d(5, 3, 1), ["x", "y", "z"], "not one linear layer"),
        (torch.nn.BatchNorm1d(3), ["x", "y", "z"], "not one linear layer"),
        ({"weight": np.eye(3), "bias": np.zeros(2)}, ["x", "y", "z"], "does not fit weight"),
        ({"weight": [["a"]]}, ["x", "y"], "not a dense array"),
        ({}, ["x", "y"], "0 weights"),
        (make_pipeline(StandardScaler(), LogisticRegression()), None, "cannot be imported from Pip"),
        (RidgeRegression().fit(X, X[:, 0]), None, "cannot be imported from Ridge"),
        (LogisticRegression(), None, "cannot be imported from LogisticRegression"),
        (7, None, "cannot be imported from int"),
    ],
)
def test_sources_that_are_no_linear_head(source: object, labels: list[str] | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        import_head(source, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_safetensors_file_from_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "head.safetensors"
    layer = torch.nn.Linear(5, 3).to(dtype)
    safetensors.torch.save_file(layer.state_dict(), path)
    with torch.no_grad():
        expected = layer.double()(torch.from_numpy(X)).numpy()
    np.testing.assert_allclose(import_head(str(path), ["x", "y", "z"]).logits(X), expected)


def test_safetensors_file_in_bfloat16(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    safetensors.torch.save_file(torch.nn.Linear(5, 3).bfloat16().state_dict(), path)
    with pytest.raises(StorageError, match="Store its arrays as float32"):
        import_head(path, ["x", "y", "z"])


def test_safetensors_file_in_either_layout_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    weight, bias = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=3)
    for stored in (weight, weight.T):
        save_arrays(path, {"weight": stored, "bias": bias}, {"labels": json.dumps(["x", "y", "z"])})
        head = import_head(path)
        assert head.labels == ("x", "y", "z")
        np.testing.assert_allclose(head.logits(X), X @ weight + bias)
    with pytest.raises(InvalidInputError, match="not those that"):
        import_head(path, ["z", "y", "x"])
    for wrong in ("x,y,z", '{"0": "x", "1": "y", "3": "z"}', "[[1], [2], [3]]", '"xyz"'):
        save_arrays(path, {"weight": weight, "bias": bias}, {"labels": wrong})
        with pytest.raises(InvalidInputError, match="not a JSON list"):
            import_head(path)


@pytest.mark.parametrize("stored", ['{"2": "z", "0": "x", "1": "y"}', '{"z": 2, "x": 0, "y": 1}', '["x", "y", "z"]'])
def test_labels_numbered_as_in_a_transformers_configuration(tmp_path: Path, stored: str) -> None:
    path = tmp_path / "head.safetensors"
    save_arrays(path, {"weight": RANDOM.normal(size=(3, 5))}, {"labels": stored})
    assert import_head(path).labels == ("x", "y", "z")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("name", ["head.pkl", "head.PT", "head.joblib", "pytorch_model.bin"])
def test_pickles_are_never_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidInputError, match="is a pickle"):
        import_head(path, ["x", "y"])
    disguised = path.rename(tmp_path / "head.safetensors")
    with pytest.raises(StorageError, match="could not read"):
        import_head(disguised, ["x", "y"])
