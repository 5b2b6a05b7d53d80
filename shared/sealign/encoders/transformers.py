"""Hugging Face transformers models as encoders: encoder-only, encoder-decoder, causal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from sealign.encoders.checks import check_texts, checked_embeddings, cut
from sealign.encoders.encoder import Embeddings, EncoderCard
from sealign.encoders.fingerprint import fingerprint
from sealign.encoders.pretrained import contents, function_of, load_pretrained, model_name, torch_device
from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError

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
        self._settings = settings
        self._device = torch_device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self._tokenizer, model, missing = load_pretrained(settings)
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
            description={"config": function_of(model.config)},
            contents=contents(model, missing, self._tokenizer),
        )
        model.config.use_cache = False  # keys and values are kept for generation only
        # Padding is masked; without a padding token (as in GPT-2) any token serves.
        self._padding = {"input_ids": self._tokenizer.pad_token_id or 0, "token_type_ids": 0}
        self._model = model.eval().to(self._device)
        self._card = EncoderCard(
            name=model_name(settings),
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
