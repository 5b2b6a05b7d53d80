"""Causal language models for generation: hidden states of tokens, and the head that predicts the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from transformers import AutoModelForCausalLM, DynamicCache

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.encoder import Embeddings, EncoderCard
from sealign.encoders.fingerprint import checkpoint_contents, fingerprint
from sealign.encoders.forecasting import Forecast
from sealign.encoders.pretrained import load_pretrained, torch_device
from sealign.encoders.sanity import check_tokenizer
from sealign.encoders.settings import EncoderSettings
from sealign.encoders.tokenizer import CausalTokenizer, Ids, Tokens
from sealign.errors import InvalidInputError

_UNLIMITED = 1 << 20
_TOLERANCE = 1e-3
_USUAL = "The first thing that one sees of the town is its church, and behind it a river."
"""A text whose states are of usual length."""


class CausalCard(EncoderCard):
    """The public description of a causal model; its ``dimension`` is that of a row that a client sends."""

    normalised: bool = False
    vocabulary: int = Field(ge=2, description="Outputs of the head; those beyond the tokenizer's size are padding.")
    window: int = Field(ge=2, description="Most tokens that the model reads, those before the text included.")
    tokenizer: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the tokenizer.")


@dataclass(frozen=True, eq=False)
class TokenStates:
    """A text's tokens and the final hidden state after each of them.

    Attributes:
        tokens: n of them; those beyond the model's window are left out.
        states: (n, d), after the model's last norm.
        left_out: tokens of the text that were not read.
    """

    tokens: Tokens
    states: Embeddings
    left_out: int


@dataclass(frozen=True, eq=False)
class OutputHead:
    """The language-model head: next-token logits of a hidden state h are Wh + b.

    Attributes:
        weight: W, (V, d), float32, read-only; a view of the model's own weights where they lie in memory.
        bias: b, (V,), float32, or None.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    def logits(self, states: NDArray[Any]) -> NDArray[np.float32]:
        """(n, V) of hidden states (n, d)."""
        logits: NDArray[np.float32] = states.astype(np.float32) @ self.weight.T
        return logits if self.bias is None else logits + self.bias


class CausalModel:
    """A transformers causal language model.

    Of ``settings``, pooling and norm have no meaning here, and ``max_length`` narrows the window where it is given;
    none of them changes the fingerprint, which is another than that of the same model as a text encoder. ``states``
    changes what a client's rows hold, their dimension and the fingerprint; by default they are final hidden states.
    Safe to call from several threads; a session is for one.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        """Load tokenizer and weights; ``settings.threads`` sets torch's threads for the process.

        Raises:
            InvalidInputError: the model is not named, not found, damaged, lacks weights, has a tokenizer of another
                model or a slow one, is not causal, has logits that are not linear in its last hidden state, or the
                device is not there.
        """
        if settings.family != "transformers":
            raise InvalidInputError(f"encoder family {settings.family!r} generates no text; name a transformers model")
        self._device = torch_device(settings.device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        checkpoint = Checkpoint(settings)
        tokenizer, model = load_pretrained(settings, checkpoint, kind=AutoModelForCausalLM)
        check_tokenizer(tokenizer, model, checkpoint)
        self.tokenizer = CausalTokenizer.of(tokenizer, _ends(model))
        positions = getattr(model.config, "max_position_embeddings", None)
        own = min(limit for limit in (positions, tokenizer.model_max_length, _UNLIMITED) if limit and limit > 0)
        given = own if settings.max_length is None else settings.max_length
        vocabularies = getattr(tokenizer, "vocab_files_names", {}).values()
        kind = settings.states or "last"
        digest = fingerprint(
            "transformers",
            description={"states": "every token"} if kind == "last" else {"states": kind},
            contents=checkpoint_contents(checkpoint, "", settings.gguf_file, vocabularies),
        )
        self._model = model.eval().to(self._device)
        self._head = self._checked_head(settings.model)
        self._forecast = self._forecasting() if kind == "forecast" else None
        self.card = CausalCard(
            name=checkpoint.name,
            dimension=self.hidden + (0 if self._forecast is None else self._forecast.width),
            fingerprint=digest,
            vocabulary=self._head.weight.shape[0],
            window=min(own, given),
            tokenizer=self.tokenizer.fingerprint,
        )
        self.tokenizer.allowed(self.card.vocabulary)

    @property
    def head(self) -> OutputHead:
        """The language-model head, tied to the input embeddings or not."""
        return self._head

    @property
    def hidden(self) -> int:
        """Dimension of a final hidden state."""
        return int(self._head.weight.shape[1])

    @property
    def whitens(self) -> bool:
        """Whether rows are whitened over the public texts before they are aligned and sent."""
        return self._forecast is not None

    def sent(self, states: Embeddings) -> Embeddings:
        """Return a client's rows, (n, dimension of the card), for final hidden states (n, hidden).

        Their first columns are the final hidden states.
        """
        return states if self._forecast is None else self._forecast(states)

    def states(
        self, texts: Iterable[str], *, most: int | None = None, progress: Callable[[int], None] | None = None
    ) -> Iterator[TokenStates]:
        """Tokens and final hidden states of each text in turn; a text beyond the window is cut at its
        end, and says how many tokens were left out.

        Args:
            texts: read one after the other, none kept.
            most: tokens read of each text; by default as many as the window holds.
            progress: told, after each text, how many tokens it gave.

        Raises:
            InvalidInputError: a text has nothing to read, or gives states that are not finite.
        """
        limit = self.card.window - len(self.tokenizer.prefix)
        limit = limit if most is None else min(most, limit)
        for text in texts:
            whole = self.tokenizer.encode(text)
            tokens = Tokens(whole.ids[:limit], whole.offsets[:limit])
            states = self._run(self._with_prefix(tokens.ids))
            yield TokenStates(tokens, self._checked(states[len(self.tokenizer.prefix) :]), len(whole) - len(tokens))
            if progress is not None:
                progress(len(tokens))

    def session(self) -> CausalSession:
        """For a text that grows."""
        return CausalSession(self)

    def _with_prefix(self, ids: Ids) -> Ids:
        return np.concatenate([np.array(self.tokenizer.prefix, dtype=np.int64), ids])

    def _run(self, ids: Ids, cache: DynamicCache | None = None) -> torch.Tensor:
        """Final hidden states of some tokens, (n, d), behind those in the cache, which then holds them too."""
        inputs = torch.from_numpy(ids)[None].to(self._device)
        with torch.inference_mode():
            output = self._model.base_model(input_ids=inputs, past_key_values=cache, use_cache=cache is not None)
        states: torch.Tensor = output.last_hidden_state[0]
        return states

    def _forecasting(self) -> Forecast:
        states = self._run(self._with_prefix(self.tokenizer.encode(_USUAL).ids)).float().numpy(force=True)
        usual = float(np.linalg.norm(states[len(self.tokenizer.prefix) :], axis=1).mean())
        return Forecast(self._head.weight, self._head.bias, usual)

    def _checked(self, states: torch.Tensor) -> Embeddings:
        rows = np.ascontiguousarray(states.float().numpy(force=True))
        if not np.isfinite(rows).all():
            raise InvalidInputError(
                f"the model {self.card.name} gave a hidden state that is not finite; its weights are damaged or "
                "overflow in float32, so choose another model"
            )
        return rows

    def _checked_head(self, name: str) -> OutputHead:
        """The head, once a trial has shown that the model is causal and that the head makes its logits."""
        layer = self._model.get_output_embeddings()
        if layer is None or getattr(layer, "weight", None) is None:
            raise InvalidInputError(f"the model {name!r} has no language-model head; choose a causal language model")
        weight = layer.weight.detach().float().numpy(force=True)
        bias = getattr(layer, "bias", None)
        head = OutputHead(weight, None if bias is None else bias.detach().float().numpy(force=True))
        weight.flags.writeable = False
        ids = self._with_prefix(self.tokenizer.encode("one two").ids)
        states = self._run(ids)
        if not torch.allclose(states[:1], self._run(ids[:1]), rtol=_TOLERANCE, atol=_TOLERANCE):
            raise InvalidInputError(
                f"in the model {name!r} tokens see what comes after them; choose a causal language model"
            )
        with torch.inference_mode():
            logits = self._model(input_ids=torch.from_numpy(ids)[None].to(self._device)).logits[0]
        own, linear = logits.float().numpy(force=True), head.logits(states.float().numpy(force=True))
        if own.shape != linear.shape or np.abs(own - linear).max() > _TOLERANCE * (1 + np.abs(own).max()):
            raise InvalidInputError(
                f"the logits of the model {name!r} are not its head times its last hidden state (they may be capped "
                "or scaled), so no encrypted product gives them; choose another model"
            )
        return head


class CausalSession:
    """One growing text: keys and values of its tokens are kept as far as tokens stay the same.

    Adding text may join its first token with the last one before; only tokens from the first difference on run again.
    """

    def __init__(self, model: CausalModel) -> None:
        self._model = model
        # Full keys and values for every layer, also where attention has a sliding window: those can be cropped.
        self._cache = DynamicCache()
        self._ids: Ids = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Tokens read, those before the text included."""
        return len(self._ids)

    def advance(self, text: str) -> NDArray[np.float32]:
        """The final hidden state after the last token of the whole text so far, shape (d,).

        Raises:
            InvalidInputError: nothing to read, more tokens than the model's window (the session can go on with a
                shorter text), or a state that is not finite.
        """
        card = self._model.card
        ids = self._model._with_prefix(self._model.tokenizer.encode(text).ids)
        if len(ids) > card.window:
            raise InvalidInputError(
                f"the text has {len(ids)} tokens and {card.name} reads at most {card.window}; shorten the prompt or "
                "ask for fewer new tokens"
            )
        shorter = min(len(self._ids), len(ids))
        different = np.flatnonzero(self._ids[:shorter] != ids[:shorter])
        common = int(different[0]) if different.size else shorter
        common = min(common, len(ids) - 1)  # the last token's state is wanted: it runs in any case
        if common < len(self._ids):
            self._cache.crop(common - len(self._ids))
        self._ids = ids[:common]  # so that an interrupted run leaves a true account of the cache
        states = self._model._run(ids[common:], self._cache)
        self._ids = ids
        return self._model._checked(states[-1])


def _ends(model: Any) -> frozenset[int]:
    """The end-of-text tokens that the model's configuration names."""
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = getattr(model.config, "eos_token_id", None)
    return frozenset(named if isinstance(named, list) else () if named is None else (named,))
