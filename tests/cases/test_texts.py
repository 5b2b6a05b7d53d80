"""Cases 08, 11, 12 and long texts: rows in the order given, lines as the file counts them, nothing cut in silence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from sealign.encoders import Embeddings, EncoderCard, EncoderSettings, TextEncoder, check_encoder, embed, load_encoder
from sealign.encoders.windows import Window
from sealign.errors import InvalidInputError
from sealign.heads import export_sklearn, import_head, require_fitting
from sealign.lines import iterate_lines, read_lines
from tests.support.tiny_models import TEXTS, model_folder


class PlugInEncoder:
    """A plug-in that trusts its callers: it indexes what it gets."""

    card = EncoderCard(name="plug-in", dimension=2, fingerprint="0" * 64)

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        rows = [[len(texts[index]), ord(texts[index][0])] for index in range(len(texts))]
        if progress is not None:
            progress(len(rows))
        return np.array(rows, dtype=np.float32).reshape(-1, 2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    path = model_folder(tmp_path_factory.mktemp("models") / "model")
    return load_encoder(EncoderSettings(model=str(path), device="cpu", threads=1))


@pytest.mark.parametrize("plugged", [False, True])
def test_rows_come_in_the_order_given(plugged: bool, encoder: TextEncoder) -> None:
    texts = [*TEXTS[:4], "bank rate", "ship strike in port today"]
    one: Any = PlugInEncoder() if plugged else encoder
    expected = embed(one, texts).rows
    series = pd.Series(texts)
    shuffled = series.sample(frac=1, random_state=3)
    for given, order in (
        (series, range(6)),
        (shuffled, shuffled.index),
        (shuffled[shuffled.str.len() < 25], [n for n in shuffled.index if len(texts[n]) < 25]),
        ((text for text in texts), range(6)),
        (np.array(texts), range(6)),
        (tuple(texts), range(6)),
        (dict.fromkeys(texts).keys(), None),
    ):
        if order is None:
            with pytest.raises(InvalidInputError, match="no one order"):
                embed(one, given)
            continue
        np.testing.assert_allclose(embed(one, given).rows, expected[list(order)], atol=1e-5)


@pytest.mark.parametrize(
    "texts",
    ["one text", b"bytes", {"a": 1}, {"a"}, pd.DataFrame({"text": ["a"]}), np.array([["a"]]), np.array("a"), 7, None],
)
def test_what_is_no_list_of_texts_is_refused(texts: Any, encoder: TextEncoder) -> None:
    for one in (encoder, PlugInEncoder()):
        with pytest.raises(InvalidInputError, match="texts is"):
            embed(one, texts)


def test_missing_values_of_a_table_are_named(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidInputError, match="text 2 is float, not str"):
        encoder.encode(pd.Series(["a", float("nan"), "c"], dtype=object))


def test_a_plug_ins_output_and_failures_are_checked() -> None:
    class Broken(PlugInEncoder):
        def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
            if progress is not None:
                progress(1)
            raise KeyError(f"inside\nthe plug-in, {len(texts)} texts")

    class Short(PlugInEncoder):
        def encode(self, texts: Sequence[str], **_: Any) -> Embeddings:
            return np.ones((len(texts) - 1, 2), dtype=np.float32)

    with pytest.raises(InvalidInputError, match=r"the encoder plug-in failed .*inside.*; lower max_length") as caught:
        embed(Broken(), ["a", "b"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"shape \(1, 2\) for 2 texts"):
        embed(Short(), ["a", "b"])

    def stop(_: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        embed(Broken(), ["a"], progress=stop)
    assert [finding.level for finding in check_encoder(Broken())] == ["ok", "error"]


def test_long_texts_are_refused_truncated_or_split(encoder: TextEncoder, tmp_path: Path) -> None:
    assert encoder.window == 128
    text = "".join(chr(97 + number % 26) for number in range(400))
    with pytest.raises(InvalidInputError, match=r"1 of 3 texts are longer than the 128 tokens .*text 2, 402 tokens"):
        encoder.encode(["oil", text, "gas"])
    short = encoder.encode(["oil", "gas"])
    cut = embed(encoder, ["oil", text, "gas"], long_texts="truncate")
    assert (cut.long, cut.long_texts) == ((1,), "truncate")
    np.testing.assert_allclose(cut.rows[[0, 2]], short, atol=1e-6)
    np.testing.assert_allclose(cut.rows[1:2], encoder.encode([text[:126]]), atol=1e-6)
    split = embed(encoder, ["oil", text, "gas"], long_texts="split")
    assert split.long == (1,)
    windows = encoder.encode([text[at : at + 126] for at in (0, 91, 183, 274)])
    mean = windows.mean(axis=0)
    np.testing.assert_allclose(split.rows[1], mean / np.linalg.norm(mean), atol=1e-5)
    opposite = text[:300] + text[299::-1]
    rows = embed(encoder, [text, opposite], long_texts="split").rows
    assert np.linalg.norm(rows[0] - rows[1]) > 0.01
    assert embed(encoder, ["oil"], long_texts="split").long == ()


def test_the_policy_is_an_option_and_no_part_of_the_fingerprint(encoder: TextEncoder, tmp_path: Path) -> None:
    path = model_folder(tmp_path / "model")
    split = load_encoder(EncoderSettings.parse(f"{path}?device=cpu&threads=1&long_texts=split"))
    assert split.card.fingerprint == encoder.card.fingerprint
    np.testing.assert_allclose(split.encode(["a" * 300]), encoder.encode(["a" * 300], long_texts="split"), atol=1e-6)
    told: list[int] = []
    split.encode(["oil", "b" * 300, "gas"], progress=told.append)
    assert sum(told) == 3


@pytest.mark.parametrize("tokens", [20, 21, 22, 30, 57, 1000])
def test_windows_cover_the_text_and_overlap(tokens: int) -> None:
    window = Window(size=20, before=1, after=1, prompt=2)
    pieces = window.pieces(tokens, "split")
    assert all(len(piece) == 20 for piece in pieces)
    assert set(np.concatenate(pieces).tolist()) == set(range(tokens))
    for piece in pieces:
        assert piece[:3].tolist() == [0, 1, 2]
        assert piece[-1] == tokens - 1
    for one, other in pairwise(pieces):
        assert len(np.intersect1d(one[3:-1], other[3:-1])) >= 16 // 4


def test_nothing_is_cut_before_the_tokenizer(encoder: TextEncoder, tmp_path: Path) -> None:
    """A text of many characters and few tokens is read to its end."""
    path = model_folder(tmp_path / "model")
    file = path / "tokenizer.json"
    content = json.loads(file.read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "-"}, "content": ""}
    file.write_text(json.dumps(content))
    sparse = load_encoder(EncoderSettings(model=str(path), device="cpu", threads=1))
    np.testing.assert_allclose(sparse.encode(["begin" + "-" * 20_000 + "end"]), sparse.encode(["beginend"]), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("copper prices\u2028rose in london\nwheat exports fell\x0cafter frost\nprofit up\x85ten percent\n", 3),
        ("copper prices\x0crose\nwheat\x85harvest\nship\x1estrike\n", 3),
        ("copper prices rose\r\nwheat exports fell\r\n", 2),
        ("\ufeffcopper prices rose\nwheat exports fell\n", 2),
    ],
)
def test_as_many_texts_as_lines(content: str, texts: int) -> None:
    lines = read_lines(io.BytesIO(content.encode()))
    assert len(lines) == texts
    assert not any("\r" in line or "\ufeff" in line or "\n" in line for line in lines)


def test_a_bad_line_does_not_take_the_others_down() -> None:
    lines = list(iterate_lines(io.BytesIO(b"copper prices rose\n\nwheat\0fell\ncaf\xe9\nship strike\n")))
    assert [line.number for line in lines if line.fault] == [2, 3, 4]
    assert [line.text for line in lines if not line.fault] == ["copper prices rose", "ship strike"]


def test_a_scikit_learn_head_survives_the_way_into_a_file(tmp_path: Path) -> None:
    """safetensors 0.8 writes Fortran-ordered arrays in memory order; the exporter does not, and the import notices."""
    random = np.random.default_rng(0)
    centres, targets = random.normal(size=(4, 32)), random.integers(0, 4, 800)
    rows = centres[targets] + random.normal(size=(800, 32))
    labels = [str(target) for target in targets]
    fitted = LogisticRegression(max_iter=500).fit(rows, labels)
    exported = tmp_path / "exported.safetensors"
    export_sklearn(fitted, exported)
    assert require_fitting(import_head(exported), rows, labels) > 0.9
    naive = tmp_path / "naive.safetensors"
    weight = np.asfortranarray(fitted.coef_)
    names = {"labels": json.dumps(list(fitted.classes_))}
    save_file({"weight": weight, "bias": fitted.intercept_}, naive, metadata=names)
    read = import_head(naive)
    if np.allclose(read.weight.T, weight):  # a version of safetensors that puts arrays in order
        assert require_fitting(read, rows, labels) > 0.9
    else:
        with pytest.raises(InvalidInputError, match="read in the other order"):
            require_fitting(read, rows, labels)
