"""Which of a model's hidden states a text is read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.sentence_modules import Dense, SentenceModules
from sealign.encoders.settings import Layers

ModelPass: TypeAlias = Callable[..., Any]
"""A model's pass over one batch; takes options of its ``forward``."""

_SAME = 1e-5
"""Largest difference between two passes of one model, in units of the largest state."""


class LayerChoice:
    """The layers whose tokens are pooled: the last one, or the mean of those that the settings name.

    Layer 0 holds the token embeddings, and the last one what comes after the model's final norm. Inner layers of a
    causal model hold a few huge numbers, most of them at a text's first token, which would decide every mean. So each
    token of each chosen layer is scaled to norm 1 first. Blocks add to what they read, so layers share their
    coordinates and their mean loses little.

    Attributes:
        chosen: numbers of layers from 0, ascending; empty for the last one as the model gives it.
    """

    def __init__(self, wanted: Layers, run: ModelPass, modules: SentenceModules, checkpoint: Checkpoint) -> None:
        """Check the choice by a pass over one text.

        Args:
            wanted: numbers of layers, negative ones from the end, or all but layer 0; empty for the last one.
            run: the model's pass over one text.
            modules: as the model's folder declares.
            checkpoint: of the model, for errors.

        Raises:
            InvalidInputError: the model has no such layer, a layer is named twice, layers do not hold vectors of one
                length per token, or modules behind the pooling belong to the last layer.
        """
        self.chosen: tuple[int, ...] = ()
        if not wanted:
            return
        states = _hidden(run) or ()
        depth = len(states) - 1
        if depth < 1:
            raise checkpoint.refusal("it shows no inner layers; leave layers out")
        wanted = tuple(range(1, len(states))) if wanted == "all" else wanted
        named = ",".join(map(str, wanted))
        if not all(-len(states) <= layer <= depth for layer in wanted):
            raise checkpoint.refusal(
                f"layers={named} names a layer that it does not have; choose from 0 (token embeddings) to {depth} "
                f"(the last one), or from -1 (the last one) to {-len(states)}"
            )
        chosen = sorted({layer % len(states) for layer in wanted})
        if len(chosen) < len(wanted):
            raise checkpoint.refusal(f"layers={named} names a layer twice; drop one")
        if chosen == [depth]:
            return
        if modules.truncate_dim is not None or any(isinstance(layer, Dense) for layer in modules.layers):
            raise checkpoint.refusal(
                "its dense layers or its number of dimensions were trained on the last layer; leave layers out"
            )
        if len({states[layer].shape for layer in [*chosen, depth]}) > 1:
            raise checkpoint.refusal(
                f"not each of layers={named} holds one vector of {states[depth].shape[2]} "
                "dimensions per token; choose others, or leave layers out"
            )
        self.chosen = tuple(chosen)

    def drop_unread(self, model: torch.nn.Module, run: ModelPass) -> None:
        """Take the blocks that no chosen layer needs out of the model, if its states stay the same without them.

        The block behind the last chosen layer stays: a final norm belongs to what the last block gives.
        """
        if not self.chosen:
            return
        before = _hidden(run)
        stacks = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
        stacks = [stack for stack in stacks if len(stack) == len(before) - 1]
        if len(stacks) != 1:
            return
        (stack,) = stacks
        unread = list(stack[self.chosen[-1] + 1 :])
        del stack[self.chosen[-1] + 1 :]
        try:
            after = _hidden(run)
            same = all(_close(before[layer], after[layer]) for layer in self.chosen)
        except Exception:  # noqa: BLE001 - models may count their blocks elsewhere too
            same = False
        if not same:
            stack.extend(unread)

    def states(self, run: ModelPass) -> torch.Tensor:
        """Return the states to pool, (rows, tokens, d)."""
        if not self.chosen:
            states: torch.Tensor = run().last_hidden_state
            return states
        hidden = run(output_hidden_states=True).hidden_states
        return torch.stack([torch.nn.functional.normalize(hidden[layer], dim=2) for layer in self.chosen]).mean(dim=0)

    @property
    def description(self) -> dict[str, object]:
        """What the fingerprint says of the choice: nothing of the last layer as the model gives it."""
        return {"hidden_states": self.chosen} if self.chosen else {}

    def described(self, pooling: str) -> str:
        """Return how token vectors become one, for people."""
        if not self.chosen:
            return pooling
        plural = "s" if len(self.chosen) > 1 else ""
        return f"{pooling} of layer{plural} {', '.join(map(str, self.chosen))}"


def _hidden(run: ModelPass) -> Any:
    with torch.inference_mode():
        return run(output_hidden_states=True).hidden_states


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _SAME * one.abs().max())
