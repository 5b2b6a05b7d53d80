"""The fingerprint of an encoder: SHA-256 of all that decides its embeddings, read from the model's files.

Nothing in it comes from the libraries that read those files, so that an upgrade of a library does not rename a model.
A reader that is equivalent but has other files (another export, another runtime) is recognised by measurement instead;
see :mod:`sealign.encoders.probes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealign.encoders.checkpoint import Checkpoint

_FORMAT = b"sealign encoder fingerprint 2"

# Entries of config.json that name files, versions or tasks and not the function.
_CONFIG_IGNORED = frozenset(
    {"architectures", "dtype", "gradient_checkpointing", "id2label", "label2id", "problem_type"}
    | {"torch_dtype", "transformers_version", "use_cache"}
)
# Entries of tokenizer_config.json that name files, or that decide padding, decoding or length, which are set elsewhere.
_TOKENIZER_IGNORED = frozenset(
    {"backend", "chat_template", "clean_up_tokenization_spaces", "is_local", "local_files_only", "max_length"}
    | {"model_max_length", "name_or_path", "pad_to_multiple_of", "pad_token_type_id", "padding_side", "processor_class"}
    | {"special_tokens_map_file", "stride", "tokenizer_file", "truncation_strategy", "vocab_file"}
)
_TOKENIZER_SETTINGS = ("added_tokens.json", "special_tokens_map.json", "tokenizer_config.json")
_VOCABULARIES = frozenset(
    {"bpe.codes", "merges.txt", "sentencepiece.bpe.model", "source.spm", "spiece.model", "spm.model", "target.spm"}
    | {"tokenizer.model", "vocab.bpe", "vocab.json", "vocab.txt"}
)


def fingerprint(
    family: str,
    *,
    description: Mapping[str, object],
    contents: Iterable[tuple[str, bytes | memoryview]],
) -> str:
    """Hash an encoder to 64 hexadecimal digits.

    Every item goes in with its length, so that no two encoders share one byte stream. Where the
    model lies, and how its files are divided, has no part in it.

    Args:
        family: of the encoder.
        description: how texts become vectors, as values that JSON can carry.
        contents: weights, configuration and tokenizer, each under a name, in an order of their own.
    """
    digest = hashlib.sha256(_FORMAT)
    described = _canonical({"family": family, **description})
    for name, content in chain([("description", described)], contents):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def checkpoint_contents(
    checkpoint: Checkpoint, folder: str, gguf_file: str | None, vocabularies: Iterable[str]
) -> Iterator[tuple[str, bytes | memoryview]]:
    """Yield what decides the function of a transformers model: configuration, tokenizer and weights.

    Args:
        checkpoint: the model's files.
        folder: of the transformer in it; empty for the top.
        gguf_file: a file that holds all three.
        vocabularies: names of the tokenizer's vocabulary files, beside those that are known.
    """
    if gguf_file is not None:
        yield "gguf", _bytes(checkpoint, gguf_file)
        return
    prefix = f"{folder}/" if folder else ""
    yield "config", _canonical(_without(checkpoint.read_json(f"{prefix}config.json"), _CONFIG_IGNORED))
    for name in _TOKENIZER_SETTINGS:
        settings = checkpoint.read_json(prefix + name)
        if settings is not None:
            yield name, _canonical(_without(settings, _TOKENIZER_IGNORED))
    serialised = checkpoint.read_json(f"{prefix}tokenizer.json")
    if serialised is not None:
        # How the tokenizer last truncated and padded is state, and set anew on each call.
        yield "tokenizer.json", _canonical({**serialised, "truncation": None, "padding": None})
    else:
        for name in sorted({*_VOCABULARIES, *vocabularies}):
            if checkpoint.path(prefix + name) is not None:
                yield name, _bytes(checkpoint, prefix + name)
    yield from checkpoint.weights(folder)


def _bytes(checkpoint: Checkpoint, name: str) -> bytes:
    path = checkpoint.path(name)
    if path is None:
        raise checkpoint.refusal(f"there is no file {name}")
    return Path(path).read_bytes()


def _without(entries: Mapping[str, Any], ignored: frozenset[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in entries.items()
        if key not in ignored and not key.startswith("_") and value is not None
    }


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
