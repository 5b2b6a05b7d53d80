from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, T5EncoderModel

from sealign.encoders import Encoder, EncoderSettings, embed, load_encoder

from .conftest import TinyModel

TEXTS = [
    "Oil prices rose sharply after the producers agreed to cut output.",
    "A cat sleeps.",
    "Crude became dearer when exporters decided to pump less of it.",
    "The orchestra rehearsed the slow movement twice before the concert on Friday evening.",
    "word " * 600,
    "Ünïcödé 文字 🙂",
]


def reference(path: Path, text: str, pooling: str, max_length: int) -> np.ndarray[Any, Any]:
    """One text alone, never padded, pooled in numpy and left unscaled."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path).eval()
    encoded = tokenizer(text, truncation=True, max_length=max_length, padding=False)
    with torch.no_grad():
        output = model(**{name: torch.tensor([ids]) for name, ids in encoded.items()})
    states = output.last_hidden_state[0].double().numpy()
    pooled: np.ndarray[Any, Any] = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return pooled


def test_minilm_equals_an_unbatched_reference(minilm: Encoder, minilm_path: Path) -> None:
    expected = np.stack([reference(minilm_path, text, "mean", 256) for text in TEXTS])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = embed(minilm, TEXTS, long_texts="truncate").rows
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_minilm_knows_what_is_related(minilm: Encoder) -> None:
    oil, cat, crude, orchestra = minilm.encode(TEXTS[:4])
    assert minilm.card.dimension == 384
    assert oil @ crude > 0.3 + max(oil @ cat, oil @ orchestra, crude @ cat)


def test_minilm_gives_the_published_similarities(minilm: Encoder) -> None:
    """The example on the model card of sentence-transformers' quick start (all-MiniLM-L6-v2)."""
    weather, outside, drove = minilm.encode(
        [
            "The weather is lovely today.",
            "It's so sunny outside!",
            "He drove to the stadium.",
        ]
    )
    assert weather @ outside == pytest.approx(0.6660, abs=1e-3)
    assert weather @ drove == pytest.approx(0.1046, abs=1e-3)
    assert outside @ drove == pytest.approx(0.1411, abs=1e-3)


def test_order_and_batches_do_not_matter(minilm: Encoder, minilm_path: Path) -> None:
    whole = embed(minilm, TEXTS, long_texts="truncate").rows
    small = load_encoder(EncoderSettings(model=str(minilm_path), batch_size=2, long_texts="truncate"))
    assert small.card == minilm.card
    told: list[int] = []
    np.testing.assert_allclose(small.encode(TEXTS[::-1], progress=told.append)[::-1], whole, atol=1e-5)
    assert told == [2, 2, 2]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [True, False])
def test_pooling_equals_an_unbatched_reference(
    tiny_model: TinyModel,
    kind: str,
    pooling: Literal["mean", "cls", "last"],
    side: str,
    pad: bool,
) -> None:
    path = tiny_model(kind, side=side, pad=pad)
    texts = ["one", "red green blue one two three", "plum fig", "seven " * 100, "strange words"]
    encoder = load_encoder(
        EncoderSettings(model=str(path), pooling=pooling, max_length=16, normalise=False, long_texts="truncate")
    )
    expected = [reference(path, text, pooling, 16) for text in texts]
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert not encoder.card.normalised


def test_encoder_decoder_gives_its_encoder(tiny_model: TinyModel) -> None:
    path = tiny_model("t5")
    encoder = load_encoder(EncoderSettings(model=str(path), normalise=False))
    model = T5EncoderModel.from_pretrained(path).eval()
    ids = AutoTokenizer.from_pretrained(path)("red green blue")["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(encoder.encode(["one", "red green blue"])[1], expected, atol=1e-5)


def test_max_length_stops_at_the_positions_of_the_model(tiny_model: TinyModel) -> None:
    path = str(tiny_model("bert"))
    long = load_encoder(EncoderSettings(model=path, max_length=4096))
    assert long.card == load_encoder(EncoderSettings(model=path, max_length=64)).card
    assert long.card != load_encoder(EncoderSettings(model=path, max_length=63)).card
    assert np.isfinite(long.encode(["red " * 1000], long_texts="truncate")).all()


def test_nothing_is_warned_or_printed(tiny_model: TinyModel, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny_model("bert without pooler")
    capfd.readouterr()  # what saving it printed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_encoder(EncoderSettings(model=str(path), long_texts="truncate")).encode(["red", "green blue " * 200])
    assert capfd.readouterr() == ("", "")


def test_several_threads_may_encode(minilm: Encoder) -> None:
    expected = minilm.encode(TEXTS[:4])
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        for _ in range(5):
            results[number] = minilm.encode(TEXTS[:4])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for vectors in results.values():
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
