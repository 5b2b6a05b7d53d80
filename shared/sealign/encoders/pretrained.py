"""Loading Hugging Face checkpoints, and what of them decides a fingerprint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sealign.encoders.settings import EncoderSettings
from sealign.errors import InvalidInputError

# Entries of a model's configuration that name files, versions or tasks and not the function.
_NO_PART_IN_FUNCTION = frozenset(
    {"architectures", "dtype", "gradient_checkpointing", "id2label", "label2id", "problem_type"}
    | {"torch_dtype", "transformers_version", "use_cache"}
)


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


def _is_local(settings: EncoderSettings) -> bool:
    return Path(settings.model).is_dir()


def model_name(settings: EncoderSettings) -> str:
    """The model's name for people; of a directory, its last part."""
    name = Path(settings.model).resolve().name if _is_local(settings) else settings.model
    return name if settings.gguf_file is None else f"{name}/{settings.gguf_file}"


def load_pretrained(settings: EncoderSettings, kind: Any = None) -> tuple[Any, Any, frozenset[str]]:
    """Tokenizer, model, and the names of weights that the checkpoint lacks.

    Args:
        settings: name the model.
        kind: the transformers class that reads it; by default the model's text encoder, without any head.

    Raises:
        InvalidInputError: not found, damaged, weights missing, or a tokenizer of another model.
    """
    if not settings.model:
        raise InvalidInputError(
            "the transformers model is not named; give its hub name or directory, for example "
            "transformers:sentence-transformers/all-MiniLM-L6-v2"
        )
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
            kind = kind or (AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel)
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


def function_of(config: Any) -> dict[str, object]:
    """What in a model's configuration decides its function, as the number of attention heads."""
    return {
        key: value
        for key, value in config.to_diff_dict().items()
        if key not in _NO_PART_IN_FUNCTION and not key.startswith("_") and value is not None
    }


def contents(model: Any, missing: frozenset[str], tokenizer: Any) -> Iterator[tuple[str, bytes | memoryview]]:
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
