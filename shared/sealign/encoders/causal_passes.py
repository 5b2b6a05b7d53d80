"""Passes of a transformers causal model over tokens: one sequence, one that grows, or many with one beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache

from sealign.encoders.branches import Branched, common_beginning
from sealign.encoders.encoder import Embeddings
from sealign.encoders.tokenizer import Ids
from sealign.errors import InvalidInputError

_TOLERANCE = 1e-3


class CausalPasses:
    """The base model, without its head, and the tokens that it wants before every text.

    Attributes:
        prefix: those tokens, (p,).

    Args:
        model: the base model.
        device: of its weights.
        prefix: tokens before every text.
        name: of the model, for errors.
    """

    def __init__(self, model: Any, device: torch.device, prefix: Sequence[int], name: str) -> None:
        self._model, self._device, self._name = model, device, name
        self.prefix: Ids = np.array(prefix, dtype=np.int64)
        self._window = min(
            (size for key in ("sliding_window", "attention_chunk_size") if (size := getattr(model.config, key, None))),
            default=None,
        )
        """Tokens that attention looks back at, where a mask must not say more."""
        self._branches: bool | None = None

    def with_prefix(self, ids: Ids) -> Ids:
        """Return the tokens of a text with those that come before every text."""
        return np.concatenate([self.prefix, ids])

    def states(self, ids: Ids, cache: DynamicCache | None = None) -> Embeddings:
        """Return final hidden states of some tokens, (n, d), behind those in the cache, which then holds them too.

        Raises:
            InvalidInputError: a state is not finite.
        """
        inputs = torch.from_numpy(ids)[None].to(self._device)
        return self._run(input_ids=inputs, past_key_values=cache, use_cache=cache is not None)

    def branched(self, trunk: Ids, sequences: Sequence[Ids]) -> tuple[Embeddings, Embeddings]:
        """Return the states of a trunk, (t, d), and those at the ends of sequences, (k, d), that begin alike.

        In one pass, but for models that cannot be told which tokens see which: there each sequence is read on from
        where it leaves the one before.

        Raises:
            InvalidInputError: a state is not finite.
        """
        if not sequences:
            return self.states(trunk), np.empty((0, 0), dtype=np.float32)
        if self._window is not None and max(map(len, (trunk, *sequences))) > self._window:
            return self._one_by_one(trunk, sequences)
        if self._branches is None:
            self._branches = self._can_branch(trunk, sequences[0])
        return (self._in_one_pass if self._branches else self._one_by_one)(trunk, sequences)

    def _in_one_pass(self, trunk: Ids, sequences: Sequence[Ids]) -> tuple[Embeddings, Embeddings]:
        branched = Branched.of(trunk, sequences)
        states = self._run(
            input_ids=torch.from_numpy(branched.ids)[None].to(self._device),
            position_ids=torch.from_numpy(branched.positions)[None].to(self._device),
            attention_mask=branched.mask(self._model.dtype).to(self._device),
            use_cache=False,
        )
        return states[: len(trunk)], states[branched.tips]

    def _one_by_one(self, trunk: Ids, sequences: Sequence[Ids]) -> tuple[Embeddings, Embeddings]:
        growing = GrowingPass(self)
        return self.states(trunk), np.stack([growing.advance(sequence) for sequence in sequences])

    def _can_branch(self, trunk: Ids, sequence: Ids) -> bool:
        """Whether the model heeds a mask and positions that are given to it."""
        try:
            found = self._in_one_pass(trunk, [sequence])
        except Exception:  # noqa: BLE001 - models refuse masks in many ways
            return False
        wanted = self._one_by_one(trunk, [sequence])
        return all(np.allclose(*pair, rtol=_TOLERANCE, atol=_TOLERANCE) for pair in zip(found, wanted, strict=True))

    def _run(self, **inputs: Any) -> Embeddings:
        with torch.inference_mode():
            states = self._model(**inputs).last_hidden_state[0]
        rows: Embeddings = np.ascontiguousarray(states.float().numpy(force=True))
        if not np.isfinite(rows).all():
            raise InvalidInputError(
                f"the model {self._name} gave a hidden state that is not finite; its weights are damaged or overflow "
                "in float32, so choose another model"
            )
        return rows


class GrowingPass:
    """One sequence that grows: keys and values of its tokens are kept as far as tokens stay the same."""

    def __init__(self, passes: CausalPasses) -> None:
        self._passes = passes
        # Full keys and values for every layer, also where attention has a sliding window: those can be cropped.
        self._cache = DynamicCache()
        self._ids: Ids = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Tokens read, those before the text included."""
        return len(self._ids)

    def advance(self, ids: Ids) -> NDArray[np.float32]:
        """Return the final hidden state after the last token of the whole sequence, shape (d,).

        Raises:
            InvalidInputError: a state is not finite.
        """
        common = common_beginning(self._ids, ids)
        if common < len(self._ids):
            self._cache.crop(common - len(self._ids))
        self._ids = ids[:common]  # so that an interrupted run leaves a true account of the cache
        states = self._passes.states(ids[common:], self._cache)
        self._ids = ids
        last: NDArray[np.float32] = states[-1]
        return last
