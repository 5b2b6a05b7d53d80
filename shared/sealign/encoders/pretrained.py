"""Loading Hugging Face checkpoints with transformers."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tokenizers import normalizers
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.encoder import one_line
from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError


def torch_device(wanted: str) -> torch.device:
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


def load_pretrained(
    settings: EncoderSettings, checkpoint: Checkpoint, folder: str = "", kind: Any = None
) -> tuple[Any, Any]:
    """Tokenizer and model, in float32.

    Args:
        settings: name the GGUF file, if the model is one.
        checkpoint: the model's files.
        folder: of the transformer in it; empty for the top.
        kind: the transformers class that reads it; by default the model's text encoder, without any head.

    Raises:
        InvalidInputError: not found, damaged, weights missing, or a tokenizer of another model.
    """
    options: dict[str, Any] = {
        "revision": checkpoint.revision,
        "trust_remote_code": False,
        "local_files_only": checkpoint.offline,  # a directory is read without asking the hub
        "subfolder": folder,
    }
    if settings.gguf_file is not None:
        options["gguf_file"] = settings.gguf_file
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(checkpoint.model, **options)
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.model, **options)
            kind = kind or (AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel)
            model, report = kind.from_pretrained(
                checkpoint.model, config=config, dtype=torch.float32, output_loading_info=True, **options
            )
    except Exception as error:
        raise checkpoint.refusal(_reason(error)) from error
    missing = sorted(
        name for name in report["missing_keys"] if not name.startswith("pooler.")
    )  # its output is not used
    if missing:
        raise InvalidInputError(
            f"the checkpoint of the transformers model {checkpoint.model!r} lacks weights "
            f"({', '.join(missing[:3])}, ...), which would be random; choose a whole one"
        )
    return tokenizer, model


def positions(model: Any) -> int:
    """Tokens for which the model has positions; 0 if nothing says."""
    limits = [getattr(model.config, "max_position_embeddings", None) or 0]
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(module, torch.nn.Embedding):
            unused = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts from behind it
            limits.append(module.num_embeddings - unused)
    return min((limit for limit in limits if limit > 0), default=0)


def lower_case(tokenizer: Any, checkpoint: Checkpoint) -> None:
    """Lower-case texts before the tokenizer's own normalisation, as sentence-transformers does."""
    if not tokenizer.is_fast:
        raise checkpoint.refusal("do_lower_case is supported for fast tokenizers (tokenizer.json) only")
    backend = tokenizer.backend_tokenizer
    parts = [normalizers.Lowercase()]
    if backend.normalizer is not None:
        parts.append(backend.normalizer)
    backend.normalizer = normalizers.Sequence(parts)


def _reason(error: Exception) -> str:
    """What went wrong and what this user can do, where the library's own advice leads nowhere."""
    text = str(error)
    if "trust_remote_code" in text:
        return "it needs its own code, which Sealign never runs; choose a model whose architecture transformers has"
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "pytorch_model.bin holds more than weights, and is not read; convert it to safetensors"
    if any(word in text.lower() for word in ("tiktoken", "sentencepiece", "protobuf")):
        lacking = [name for name in ("sentencepiece", "google.protobuf") if not _installed(name)]
        packages = " ".join(name.replace("google.", "") for name in lacking)
        return (
            "its tokenizer is a SentencePiece or tiktoken file without a tokenizer.json; "
            + (f"run: pip install {packages}, or " if packages else "")
            + "add the tokenizer.json that the model's fast tokenizer saves"
        )
    if "Unrecognized configuration class" in text:
        return "transformers has no text encoder of its architecture that works on its own; choose another model"
    return f"{one_line(error)} Check its name or directory, and that its files are whole."


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


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
