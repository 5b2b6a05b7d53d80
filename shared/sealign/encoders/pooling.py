"""From token vectors to one vector per text: poolings, and the layers behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.sentence_modules import Dense, Normalize, SentenceModules
from sealign.encoders.settings import PoolingMode


class Readout:
    """What a model does with its last hidden states.

    Args:
        modules: as the model's folder declares.
        pooling: modes whose vectors are joined.
        checkpoint: holds the weights of the layers.
        prompt: tokens at a text's start that are not pooled.
        device: to compute on.

    Raises:
        InvalidInputError: the weights of a layer are missing, damaged, or of another shape.
    """

    def __init__(
        self,
        modules: SentenceModules,
        pooling: Sequence[PoolingMode],
        checkpoint: Checkpoint,
        prompt: int,
        device: torch.device,
    ) -> None:
        self._pooling = tuple(pooling)
        self._prompt = prompt
        self._truncate_dim = modules.truncate_dim
        self._layers = [
            _Linear(layer, checkpoint, device) if isinstance(layer, Dense) else layer for layer in modules.layers
        ]

    def __call__(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """From (rows, tokens, d) to (rows, dimension), for batches padded on the right."""
        vectors = torch.cat([pooled(states, mask, mode, self._prompt) for mode in self._pooling], dim=1)
        for layer in self._layers:
            vectors = torch.nn.functional.normalize(vectors, dim=1) if isinstance(layer, Normalize) else layer(vectors)
        return vectors[:, : self._truncate_dim]


def pooled(states: torch.Tensor, mask: torch.Tensor, mode: PoolingMode, skip: int = 0) -> torch.Tensor:
    """One vector per row, (rows, d), of (rows, tokens, d); the first ``skip`` tokens do not count.

    Padding is on the right. Positions of ``weightedmean`` count from the row's first token, skipped ones included.
    """
    read = mask.clone()
    read[:, :skip] = 0
    if mode == "cls":
        return states[:, min(skip, states.shape[1] - 1)]
    if mode == "last":
        return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]
    if mode == "max":
        return states.masked_fill(read.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
    weights = read.to(states.dtype)
    if mode == "weightedmean":
        weights = weights * torch.arange(1, states.shape[1] + 1, device=states.device, dtype=states.dtype)
    total = (states * weights.unsqueeze(-1)).sum(dim=1)
    count = weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


class _Linear:
    """A Dense module with its weights."""

    def __init__(self, dense: Dense, checkpoint: Checkpoint, device: torch.device) -> None:
        tensors = _tensors(dense, checkpoint)
        shapes: dict[str, tuple[Any, ...]] = {"linear.weight": (dense.outputs, dense.inputs)}
        if dense.bias:
            shapes["linear.bias"] = (dense.outputs,)
        if dense.residual and dense.inputs != dense.outputs:
            shapes["residual.weight"] = (dense.outputs, dense.inputs)
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
            raise checkpoint.refusal(f"the weights in {dense.folder} are not those that its config.json describes")
        self._tensors = {name: tensor.float().to(device) for name, tensor in tensors.items()}
        self._activation = getattr(torch.nn, dense.activation)()
        self._residual = dense.residual

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        result = self._activation(linear(vectors, self._tensors["linear.weight"], self._tensors.get("linear.bias")))
        if self._residual:
            projection = self._tensors.get("residual.weight")
            result = result + (vectors if projection is None else linear(vectors, projection))
        activated: torch.Tensor = result
        return activated


def _tensors(dense: Dense, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    stored = checkpoint.path(f"{dense.folder}/model.safetensors")
    if stored is not None:
        return load_file(stored)
    pickled = checkpoint.path(f"{dense.folder}/pytorch_model.bin")
    if pickled is None:
        raise checkpoint.refusal(f"{dense.folder} has no weights; restore {dense.folder}/model.safetensors")
    tensors: dict[str, torch.Tensor] = torch.load(pickled, map_location="cpu", weights_only=True)
    return tensors


def layer_contents(modules: SentenceModules, checkpoint: Checkpoint) -> Iterator[tuple[str, bytes | memoryview]]:
    """The layers' weights, for the fingerprint."""
    for layer in modules.layers:
        if isinstance(layer, Dense):
            for name, content in checkpoint.weights(layer.folder):
                yield f"{layer.folder} {name}", content
