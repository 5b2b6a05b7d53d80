from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from sealign.errors import InvalidInputError, StorageError
from sealign.files import load_arrays, save_arrays
from sealign.heads import SCORES, TrainedHead, auroc, energy, import_head, retrain_head, train_head


def gaussians(
    rows: int, spread: float = 1.0, seed: int = 0, classes: int = 3, scale: float = 1.0
) -> tuple[NDArray[np.float64], list[str]]:
    """Unit-variance clusters around points on the axes of 8 dimensions."""
    random = np.random.default_rng(seed)
    targets = np.arange(rows) % classes
    x = random.normal(size=(rows, 8)) * spread + 3.0 * np.eye(8)[targets] + 5.0
    return scale * x, [f"class {k}" for k in targets]


def test_fits_separable_gaussians_near_the_best_possible() -> None:
    trained = train_head(*gaussians(900))
    x, labels = gaussians(3000, seed=1)
    predicted = np.array(trained.head.labels)[trained.head.logits(x).argmax(1)]
    means = 3.0 * np.eye(8)[:3] + 5.0
    nearest = np.argmin(((x[:, None] - means) ** 2).sum(2), axis=1)
    best = np.mean([f"class {k}" for k in nearest] == np.array(labels))
    accuracy = np.mean(predicted == np.array(labels))
    assert accuracy > best - 0.01
    assert trained.held_out_accuracy == pytest.approx(accuracy, abs=0.05)
    assert trained.held_out_rows == 135
    between = np.random.default_rng(2).normal(size=(1000, 8)) + 5.0
    scores = [energy(trained.head.logits(rows)) for rows in (x, between)]
    assert auroc(*scores) > 0.8


@pytest.mark.parametrize("classes", [2, 3])
def test_the_final_fit_is_scikit_learn_s_on_all_rows(classes: int) -> None:
    x, labels = gaussians(300, classes=classes)
    trained = train_head(x, labels, penalties=[1e-2])
    variance = x.var(axis=0).sum()
    oracle = LogisticRegression(C=1 / (1e-2 * variance * len(x)), tol=1e-8, max_iter=9999)
    oracle.fit(x, labels)
    probabilities = np.exp(trained.temperature * trained.head.logits(x))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, oracle.predict_proba(x), atol=2e-3)


def test_the_strongest_penalty_within_one_standard_error() -> None:
    x, labels = gaussians(600, spread=2.0)
    penalties = [1.0, 0.1, 1e-2, 1e-3, 1e-4]
    chosen = train_head(x, labels, penalties=penalties)
    weakest = train_head(x, labels, penalties=[1e-4])
    assert chosen.penalty in penalties[:3]
    sizes = [one.temperature * np.linalg.norm(one.head.weight) for one in (chosen, weakest)]
    assert sizes[0] < 0.8 * sizes[1]
    assert chosen.held_out_accuracy > weakest.held_out_accuracy - 0.1  # two standard errors of 90 rows


def test_deterministic_in_the_seed_and_the_order_of_penalties() -> None:
    x, labels = gaussians(200)
    one = train_head(x, labels, penalties=[1e-2, 1.0], seed=3)
    two = train_head(x, labels, penalties=[1.0, 1e-2], seed=3)
    np.testing.assert_array_equal(one.head.weight, two.head.weight)


def test_scale_of_embeddings_does_not_matter() -> None:
    small, large = (train_head(*gaussians(300, scale=s)) for s in (1.0, 1e4))
    assert small.penalty == large.penalty
    np.testing.assert_allclose(small.head.weight, 1e4 * large.head.weight, rtol=1e-4, atol=1e-6)


def test_classes_fix_the_order_of_outputs() -> None:
    x, labels = gaussians(90)
    order = ("class 2", "class 0", "class 1")
    trained = train_head(x, labels, classes=order)
    assert trained.head.labels == order
    assert trained.held_out_accuracy > 0.8


def test_a_rare_class_is_in_both_parts() -> None:
    x, labels = gaussians(200)
    x[:2], labels[:2] = 30.0, ["rare", "rare"]
    trained = train_head(x, labels)
    assert "rare" in trained.head.labels


def test_a_part_may_hold_one_row_of_a_rare_class() -> None:
    """The head of all other parts is the same as training gives with its penalty."""
    x, labels = gaussians(200)
    classes = ("class 0", "class 1", "class 2", "rare")
    again = retrain_head(x, labels, classes=classes[:3], penalty=0.01)
    assert np.array_equal(again.weight, train_head(x, labels, penalties=[0.01]).head.weight)
    x[0], labels[0] = 30.0, "rare"
    with_rare = retrain_head(x, labels, classes=classes, penalty=0.01)
    assert with_rare.labels[int(with_rare.logits(x[:1]).argmax())] == "rare"
    ends = retrain_head(x[[0, 1]], [labels[0], labels[1]], classes=("class 1", "rare"), penalty=0.01)
    assert ends.logits(x[[1, 0]]).argmax(axis=1).tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="class 'rare' has 0 rows"):
        retrain_head(x[1:], labels[1:], classes=classes, penalty=0.01)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({0: "alone"}, {}, r"class 'alone' has 1 rows"),
        ({}, {"classes": ("class 0", "class 1", "class 2", "other")}, r"class 'other' has 0 rows"),
        ({}, {"classes": ("class 0", "class 1")}, r"not classes of the head: \['class 2'\]"),
        (dict.fromkeys(range(30), "all"), {}, "at least two classes, not 1"),
        ({}, {"held_out": 0.0}, "held_out is 0.0"),
        ({}, {"held_out": 1.0}, "held_out is 1.0"),
        ({}, {"penalties": []}, "penalties"),
        ({}, {"penalties": [0.0]}, "penalties"),
        ({}, {"penalties": [float("nan")]}, "penalties"),
    ],
)
def test_unusable_training_data(change: dict[int, str], options: dict[str, object], message: str) -> None:
    x, labels = gaussians(30)
    for row, label in change.items():
        labels[row] = label
    with pytest.raises(InvalidInputError, match=message):
        train_head(x, labels, **options)  # type: ignore[arg-type]


def test_unusable_embeddings() -> None:
    x, labels = gaussians(30)
    with pytest.raises(InvalidInputError, match="29 labels meet 30 embeddings"):
        train_head(x, labels[:-1])
    with pytest.raises(InvalidInputError, match="all the same"):
        train_head(np.ones_like(x), labels)
    x[7, 2] = np.nan
    with pytest.raises(InvalidInputError, match="the first is row 7"):
        train_head(x, labels)


def test_round_trip_and_plain_layout(tmp_path: Path) -> None:
    path = tmp_path / "heads" / "h.safetensors"
    trained = train_head(*gaussians(90))
    trained.save(path)
    loaded = TrainedHead.load(path)
    for name in ("weight", "bias", "labels"):
        np.testing.assert_array_equal(getattr(loaded.head, name), getattr(trained.head, name))
    for name in vars(trained).keys() - {"head"}:
        assert getattr(loaded, name) == getattr(trained, name)
    assert set(loaded.ood) == set(SCORES)
    imported = import_head(path)
    np.testing.assert_array_equal(imported.weight, trained.head.weight)
    assert imported.labels == trained.head.labels


def test_foreign_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    with pytest.raises(StorageError):
        TrainedHead.load(path)
    path.write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(StorageError):
        TrainedHead.load(path)
    save_arrays(path, {"weight": np.eye(2)}, {})
    with pytest.raises(InvalidInputError, match="not a trained head"):
        TrainedHead.load(path)
    train_head(*gaussians(90)).save(path)
    arrays, metadata = load_arrays(path)
    for bad_arrays, bad_metadata in [
        ({"weight": arrays["weight"]}, metadata),
        (arrays | {"bias": np.full(3, np.nan)}, metadata),
        (arrays | {"bias": np.zeros(3, np.float32)}, metadata),
        (arrays, metadata | {"labels": '["a", "b"]'}),
        (arrays, metadata | {"labels": "3"}),
        (arrays, metadata | {"card": "{}"}),
        (arrays, metadata | {"card": metadata["card"].replace('"energy"', '"other"')}),
        (arrays, metadata | {"card": metadata["card"].replace('"temperature": ', '"temperature": -')}),
    ]:
        save_arrays(path, bad_arrays, bad_metadata)
        with pytest.raises(InvalidInputError, match="is damaged"):
            TrainedHead.load(path)


def test_importing_the_packages_needs_no_training_library() -> None:
    code = (
        "import sys, sealign.heads, sealign.alignment;"
        "print({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
