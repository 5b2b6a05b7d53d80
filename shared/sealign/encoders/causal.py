"""Causal language models for generation: hidden states of tokens, and the head that predicts the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from transformers import AutoModelForCausalLM

from sealign.encoders.causal_passes import CausalPasses, GrowingPass
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
            InvalidInputError: the settings name layers; the model is not named, not found, damaged, lacks weights, has
                a tokenizer of another model or a slow one, is not causal, has logits that are not linear in its last
                hidden state, or the device is not there.
        """
        if settings.family != "transformers":
            raise InvalidInputError(f"encoder family {settings.family!r} generates no text; name a transformers model")
        if settings.layers:
            raise InvalidInputError("a causal model generates from its last hidden states; leave the option layers out")
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
        model = model.eval().to(self._device)
        self._passes = CausalPasses(model.base_model, self._device, self.tokenizer.prefix, checkpoint.name)
        self._head = self._checked_head(model, settings.model)
        self._forecast = self._forecasting(model.get_output_embeddings()) if kind == "forecast" else None
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
            yield TokenStates(tokens, self._read(tokens), len(whole) - len(tokens))
            if progress is not None:
                progress(len(tokens))

    def states_beside(self, tokens: Tokens, texts: Sequence[str]) -> tuple[Embeddings, Embeddings]:
        """Return the final hidden states of a text's tokens, (n, d), and those after whole other texts, (k, d).

        The texts begin alike, and each costs only what its tokens differ in.

        Raises:
            InvalidInputError: a text has nothing to read or more tokens than the window, or a state is not finite.
        """
        trunk, sequences = self._passes.with_prefix(tokens.ids), [self.readable(text) for text in texts]
        states, ends = self._passes.branched(trunk, sequences)
        return states[len(self.tokenizer.prefix) :], ends

    def readable(self, text: str) -> Ids:
        """Return the ids of a whole text, with those before it, (n,).

        Raises:
            InvalidInputError: it has more tokens than the window.
        """
        ids = self._passes.with_prefix(self.tokenizer.encode(text).ids)
        if len(ids) > self.card.window:
            raise InvalidInputError(
                f"the text has {len(ids)} tokens and {self.card.name} reads at most {self.card.window}; shorten the "
                "prompt or ask for fewer new tokens"
            )
        return ids

    def session(self) -> CausalSession:
        """For a text that grows."""
        return CausalSession(self, self._passes)

    def _forecasting(self, layer: torch.nn.Linear) -> Forecast:
        usual = float(np.linalg.norm(self._read(self.tokenizer.encode(_USUAL)), axis=1).mean())
        return Forecast(
            layer.weight.detach().float(), None if self._head.bias is None else layer.bias.detach().float(), usual
        )

    def _read(self, tokens: Tokens) -> Embeddings:
        """Final hidden states of a text's tokens, (n, d)."""
        return self._passes.states(self._passes.with_prefix(tokens.ids))[len(self.tokenizer.prefix) :]

    def _checked_head(self, model: Any, name: str) -> OutputHead:
        """The head, once a trial has shown that the model is causal and that the head makes its logits."""
        layer = model.get_output_embeddings()
        if layer is None or getattr(layer, "weight", None) is None:
            raise InvalidInputError(f"the model {name!r} has no language-model head; choose a causal language model")
        weight = layer.weight.detach().float().numpy(force=True)
        bias = getattr(layer, "bias", None)
        head = OutputHead(weight, None if bias is None else bias.detach().float().numpy(force=True))
        weight.flags.writeable = False
        ids = self._passes.with_prefix(self.tokenizer.encode("one two").ids)
        states = self._passes.states(ids)
        if not np.allclose(states[:1], self._passes.states(ids[:1]), rtol=_TOLERANCE, atol=_TOLERANCE):
            raise InvalidInputError(
                f"in the model {name!r} tokens see what comes after them; choose a causal language model"
            )
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(ids)[None].to(self._device)).logits[0]
        own, linear = logits.float().numpy(force=True), head.logits(states)
        if own.shape != linear.shape or np.abs(own - linear).max() > _TOLERANCE * (1 + np.abs(own).max()):
            raise InvalidInputError(
                f"the logits of the model {name!r} are not its head times its last hidden state (they may be capped "
                "or scaled), so no encrypted product gives them; choose another model"
            )
        return head


class CausalSession:
    """One growing text. Adding text may join its first token with the last one before."""

    def __init__(self, model: CausalModel, passes: CausalPasses) -> None:
        self._model = model
        self._pass = GrowingPass(passes)

    def __len__(self) -> int:
        """Tokens read, those before the text included."""
        return len(self._pass)

    def advance(self, text: str) -> NDArray[np.float32]:
        """The final hidden state after the last token of the whole text so far, shape (d,).

        Raises:
            InvalidInputError: nothing to read, more tokens than the model's window (the session can go on with a
                shorter text), or a state that is not finite.
        """
        return self._pass.advance(self._model.readable(text))


def _ends(model: Any) -> frozenset[int]:
    """The end-of-text tokens that the model's configuration names."""
    named = getattr(model.generation_config, "eos_token_id", None)
    if named is None:
        named = getattr(model.config, "eos_token_id", None)
    return frozenset(named if isinstance(named, list) else () if named is None else (named,))
