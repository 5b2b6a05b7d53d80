"""Hugging Face transformers models as encoders: encoder-only, encoder-decoder, causal."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sealign.encoders.checks import check_texts, checked_embeddings, cut
from sealign.encoders.encoder import Embeddings, EncoderCard
from sealign.encoders.fingerprint import fingerprint
from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError

# Entries of a model's configuration that name files, versions or tasks and not the function.
_NO_PART_IN_FUNCTION = frozenset(
    {"architectures", "dtype", "gradient_checkpointing", "id2label", "label2id", "problem_type"}
    | {"torch_dtype", "transformers_version", "use_cache"}
)


_Tokens: TypeAlias = dict[str, list[list[int]]]  # one list of numbers for each text, by input


class TransformersEncoder:
    """A transformers model's last hidden states, pooled to one float32 vector for each text.

    Of an encoder-decoder (as T5) the encoder alone is used.

    Batches are padded on the right whatever the tokenizer prefers: positions then count from the
    first token, and in a causal model no token sees the padding. Texts longer than ``max_length``
    tokens are cut at their end. Safe to call from several threads.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        """Load tokenizer and weights; ``settings.threads`` sets torch's threads for the process.

        Raises:
            InvalidInputError: the model is not named, not found, damaged, lacks weights, has a
                tokenizer of another model, or the device is not there.
        """
        if not settings.model:
            raise InvalidInputError(
                "the transformers model is not named; give its hub name or directory, for example "
                "transformers:sentence-transformers/all-MiniLM-L6-v2"
            )
        self._settings = settings
        self._device = _device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        name = Path(settings.model).resolve().name if _is_local(settings) else settings.model
        if settings.gguf_file is not None:
            name = f"{name}/{settings.gguf_file}"
        self._tokenizer, model, missing = _load(settings)
        self._lock = threading.Lock()  # a tokenizer's truncation is state that calls change
        limits = [
            settings.max_length,
            self._tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", 0),
        ]
        self._max_length = min(limit for limit in limits if limit and limit > 0)
        self._special_tokens = self._tokenizer.num_special_tokens_to_add()
        digest = fingerprint(
            settings,
            max_length=self._max_length,
            description={"config": _function_of(model.config)},
            contents=_contents(model, missing, self._tokenizer),
        )
        model.config.use_cache = False  # keys and values are kept for generation only
        # Padding is masked; without a padding token (as in GPT-2) any token serves.
        self._padding = {"input_ids": self._tokenizer.pad_token_id or 0, "token_type_ids": 0}
        self._model = model.eval().to(self._device)
        self._card = EncoderCard(
            name=name,
            dimension=self._dimension(),
            fingerprint=digest,
            normalised=settings.normalise,
        )

    @property
    def card(self) -> EncoderCard:
        return self._card

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Embeddings:
        """Embed ``texts`` as :meth:`sealign.encoders.Encoder.encode` says."""
        check_texts(texts)
        vectors = np.empty((len(texts), self._card.dimension), dtype=np.float32)
        # Texts of like length share a batch, so little is padding; the longest come first, so
        # that a lack of memory shows at once.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        for start in range(0, len(order), self._settings.batch_size):
            rows = order[start : start + self._settings.batch_size]
            vectors[rows] = self._embed(self._tokenise(texts, rows))
            if progress is not None:
                progress(len(rows))
        return checked_embeddings(vectors, normalise=self._settings.normalise, encoder=self._card.name)

    def _tokenise(self, texts: Sequence[str], rows: Sequence[int]) -> _Tokens:
        with self._lock:
            encoded = self._tokenizer(
                [cut(texts[row], self._max_length) for row in rows],
                truncation=True,
                max_length=self._max_length,
                padding=False,
                return_attention_mask=False,
            )
        for row, ids in zip(rows, encoded["input_ids"], strict=True):
            if len(ids) <= self._special_tokens:
                raise InvalidInputError(
                    f"text {row} holds only characters that the tokenizer of {self._card.name} removes; leave it out"
                )
        return {name: encoded[name] for name in self._padding if name in encoded}

    def _embed(self, tokens: _Tokens) -> Embeddings:
        """The pooled last hidden states of one batch, shape (rows, d)."""
        mask = self._padded([[1] * len(ids) for ids in tokens["input_ids"]], 0)
        inputs = {name: self._padded(ids, self._padding[name]) for name, ids in tokens.items()}
        with torch.inference_mode():
            states = self._model(**inputs, attention_mask=mask).last_hidden_state
            return _pool(states, mask, self._settings.pooling).float().numpy(force=True)

    def _padded(self, sequences: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(sequence) for sequence in sequences]
        return pad_sequence(tensors, batch_first=True, padding_value=value).to(self._device)

    def _dimension(self) -> int:
        """The true d; a configuration's ``hidden_size`` may be another layer's."""
        try:
            return int(self._embed({"input_ids": [[0]]}).shape[1])
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidInputError(
                f"the transformers model {self._settings.model!r} does not turn tokens into hidden "
                f"states ({error}); choose a text encoder or a causal language model"
            ) from error


def _pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """From (rows, tokens, d) to (rows, d), for batches padded on the right."""
    if pooling == "cls":
        return states[:, 0]
    counts = mask.sum(dim=1)
    if pooling == "last":
        return states[torch.arange(len(states), device=states.device), counts - 1]
    return (states * mask.unsqueeze(-1)).sum(dim=1) / counts.unsqueeze(-1)


def _device(wanted: str) -> torch.device:
    """The device to compute on; ``auto`` prefers CUDA, then MPS, then the processor."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return torch.device(next((kind for kind, usable in there.items() if usable), "cpu"))
    device = torch.device(wanted)
    usable = there.get(device.type, True)
    if not usable or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InvalidInputError(
            f"the encoder's device {wanted!r} is not available to torch here; choose device=cpu or device=auto"
        )
    return device


def _is_local(settings: EncoderSettings) -> bool:
    return Path(settings.model).is_dir()


def _load(settings: EncoderSettings) -> tuple[Any, Any, frozenset[str]]:
    """Tokenizer, model, and the names of weights that the checkpoint lacks."""
    options: dict[str, Any] = {
        "revision": settings.revision or "main",
        "trust_remote_code": False,
        "local_files_only": _is_local(settings),  # a directory is read without asking the hub
    }
    if settings.gguf_file is not None:
        options["gguf_file"] = settings.gguf_file
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(settings.model, **options)
            tokenizer = AutoTokenizer.from_pretrained(settings.model, truncation_side="right", **options)
            kind = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
            model, report = kind.from_pretrained(
                settings.model,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise InvalidInputError(
            f"could not load the transformers model {settings.model!r}: {error} "
            "Check its name or directory, and that its files are whole."
        ) from error
    missing = frozenset(report["missing_keys"])
    if any(not name.startswith("pooler.") for name in missing):  # the pooler's output is not used
        raise InvalidInputError(
            f"the checkpoint of the transformers model {settings.model!r} lacks weights "
            f"({', '.join(sorted(missing)[:3])}, ...), which would be random; choose a whole one"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InvalidInputError(
            f"the tokenizer in {settings.model!r} has {len(tokenizer)} tokens and its model only "
            f"{rows}; use the tokenizer that belongs to the model"
        )
    return tokenizer, model, missing


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and load reports off the terminal; errors still raise."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _function_of(config: Any) -> dict[str, object]:
    """What in a model's configuration decides its function, as the number of attention heads."""
    return {
        key: value
        for key, value in config.to_diff_dict().items()
        if key not in _NO_PART_IN_FUNCTION and not key.startswith("_") and value is not None
    }


def _contents(model: Any, missing: frozenset[str], tokenizer: Any) -> Iterator[tuple[str, bytes | memoryview]]:
    """The weights that were loaded, by name, and the tokenizer, for the fingerprint."""
    for name, tensor in sorted(model.state_dict().items()):
        if name not in missing:
            words = tensor.contiguous().flatten().view(torch.uint8).numpy()
            yield f"weight {name} {tensor.dtype} {list(tensor.shape)}", memoryview(words)
    yield from _tokenizer_contents(tokenizer)


def _tokenizer_contents(tokenizer: Any) -> Iterator[tuple[str, bytes]]:
    if tokenizer.is_fast:
        serialised = json.loads(tokenizer.backend_tokenizer.to_str())
        # How it last truncated and padded is state, and set anew on each call.
        serialised.update(truncation=None, padding=None)
        yield "tokenizer", json.dumps(serialised, sort_keys=True).encode()
        return
    with tempfile.TemporaryDirectory() as directory:
        for path in sorted(Path(file) for file in tokenizer.save_vocabulary(directory)):
            yield f"tokenizer file {path.name}", path.read_bytes()
    where = ("name_or_path", "is_local", "local_files_only")
    options = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if key not in where and not key.endswith("_file") and not key.startswith("_")
    }
    described = {"class": type(tokenizer).__name__, "options": options, "added": tokenizer.get_added_vocab()}
    yield "tokenizer", json.dumps(described, sort_keys=True, default=str).encode()
