"""The modules of a sentence-transformers folder, read without that package.

Source: the files that sentence-transformers 3.4 to 6.2 write (``modules.json``, ``sentence_bert_config.json``,
``1_Pooling/config.json``, ``2_Dense/config.json``, ``config_sentence_transformers.json``). Every key has a meaning
here, or is known not to change embeddings, or is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, get_args

from sealign.encoders.checkpoint import Checkpoint
from sealign.encoders.settings import EncoderSettings, PoolingMode
from sealign.errors import InvalidInputError

_OLD_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# What version 3 to 5 write, in the order in which the vectors are joined.
_POOLING_KEYS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
ACTIVATIONS = ("Tanh", "Identity", "ReLU", "GELU", "Sigmoid", "SiLU", "ELU", "SELU", "LeakyReLU", "Softplus", "Mish")
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling.

    Attributes:
        folder: where its weights lie.
        inputs: dimension in.
        outputs: dimension out.
        bias: whether there is one.
        activation: a name of :data:`ACTIVATIONS`.
        residual: whether the input, or a linear map of it, is added to the output.
    """

    folder: str
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True)
class Normalize:
    """Division by the Euclidean norm."""


@dataclass(frozen=True)
class SentenceModules:
    """What a folder declares about how its texts become vectors; the defaults are those of a plain transformer.

    Attributes:
        folder: of the transformer; empty for the top.
        max_length: maximum tokens per text, or None.
        lower_case: texts are lower-cased before the tokenizer's own normalisation.
        pooling: modes whose vectors are joined; empty if nothing is declared.
        include_prompt: the prompt's tokens are pooled as well.
        layers: applied to the pooled vector, in order.
        truncate_dim: dimensions kept of the result, or None for all.
        prompts: texts to put before others, by name.
        default_prompt: name of the one that is used unless another is asked for, or None.
    """

    folder: str = ""
    max_length: int | None = None
    lower_case: bool = False
    pooling: tuple[PoolingMode, ...] = ()
    include_prompt: bool = True
    layers: tuple[Dense | Normalize, ...] = ()
    truncate_dim: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def prompt_text(self, settings: EncoderSettings) -> str:
        """The text that goes before every text; often empty.

        Raises:
            InvalidInputError: the settings name a prompt that is not declared.
        """
        if settings.prompt_text is not None:
            return settings.prompt_text
        name = settings.prompt if settings.prompt is not None else self.default_prompt
        if name is None:
            return ""
        if name not in self.prompts:
            raise InvalidInputError(
                f"the model declares no prompt {name!r}; it declares {', '.join(sorted(self.prompts)) or 'none'}. "
                "Name one of these, or give prompt_text"
            )
        return self.prompts[name]


def read_modules(checkpoint: Checkpoint) -> SentenceModules:
    """Read what a model declares; the defaults if it is no sentence-transformers folder.

    Raises:
        InvalidInputError: a module, key or value that is not supported, by its name; or a damaged file.
    """
    if checkpoint.path("adapter_config.json") is not None:
        raise checkpoint.refusal(
            "adapter_config.json says that it is an adapter of another model; merge the two (peft: merge_and_unload) "
            "and name the merged model"
        )
    if checkpoint.path("modules.json", certain=True) is None:
        return SentenceModules()
    steps = _Reader(checkpoint).steps()
    if [kind for kind, _ in steps[:2]] != ["Transformer", "Pooling"]:
        raise checkpoint.refusal(
            f"modules.json lists {', '.join(kind for kind, _ in steps) or 'nothing'}; Sealign reads folders that begin "
            "with Transformer and Pooling"
        )
    reader = _Reader(checkpoint)
    layers = tuple(reader.layer(kind, folder) for kind, folder in steps[2:])
    return SentenceModules(
        folder=steps[0][1],
        **reader.transformer(steps[0][1]),
        **reader.pooling(steps[1][1]),
        layers=layers,
        **reader.top(),
    )


class _Reader:
    """Reads one folder's files, each key once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def steps(self) -> list[tuple[str, str]]:
        """The kinds and folders of the modules, in order."""
        listed = self._checkpoint.read_json("modules.json")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise self._checkpoint.refusal("modules.json is not a list of modules; restore the file")
        steps = []
        for entry in listed:
            keys = _Keys(self._checkpoint, "modules.json", entry)
            kind, folder = str(keys.take("type", "")), str(keys.take("path", ""))
            keys.ignore("idx", "name")
            keys.expect("kwargs", [], None)
            keys.done()
            parts = PurePosixPath(folder.replace("\\", "/")).parts
            if folder.startswith(("/", "\\")) or ".." in parts or any(":" in part for part in parts):
                raise self._checkpoint.refusal(f"modules.json names the folder {folder!r}, which is outside the model")
            if not kind.startswith("sentence_transformers."):
                raise self._checkpoint.refusal(
                    f"its module {kind!r} needs its own code, which Sealign never runs; choose another model"
                )
            steps.append((kind.rpartition(".")[2], "/".join(parts)))
        return steps

    def transformer(self, folder: str) -> dict[str, Any]:
        """Maximum length and lower-casing."""
        prefix = f"{folder}/" if folder else ""
        found = next((name for name in _OLD_TRANSFORMER_CONFIGS if self._checkpoint.path(prefix + name)), None)
        keys = _Keys(
            self._checkpoint, prefix + (found or ""), self._checkpoint.read_json(prefix + found) if found else {}
        )
        length, lower = keys.take("max_seq_length", None), keys.take("do_lower_case", False)
        keys.expect("transformer_task", "feature-extraction")
        keys.expect("module_output_name", "token_embeddings")
        keys.expect("modality_config", _TEXT_ONLY)
        for name in ("processing_kwargs", "config_args", "config_kwargs"):
            keys.expect(name, {}, None)
        for name in ("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"):
            keys.expect(name, None)
        keys.ignore("unpad_inputs")
        for name in ("model_args", "model_kwargs"):  # numbers are float32 here whatever the folder prefers
            inner = _Keys(self._checkpoint, f"{keys.file}: {name}", keys.take(name, None) or {})
            inner.ignore("attn_implementation", "dtype", "low_cpu_mem_usage", "torch_dtype", "trust_remote_code")
            inner.done()
        for name in ("tokenizer_args", "processor_kwargs"):
            inner = _Keys(self._checkpoint, f"{keys.file}: {name}", keys.take(name, None) or {})
            inner.ignore("trust_remote_code", "padding_side")
            length = inner.take("model_max_length", length)
            inner.done()
        keys.done()
        if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
            raise keys.refused("max_seq_length", length)
        if not isinstance(lower, bool):
            raise keys.refused("do_lower_case", lower)
        return {"max_length": length, "lower_case": lower}

    def pooling(self, folder: str) -> dict[str, Any]:
        """Modes, and whether the prompt counts."""
        keys = self._config(folder)
        old = {key: keys.take(key, False) for key in _POOLING_KEYS}
        named = keys.take("pooling_mode", None)
        if named is None:
            named = [mode for key, mode in _POOLING_KEYS.items() if old[key]] or ["mean"]
        modes = [named] if isinstance(named, str) else named
        modes = ["last" if mode == "lasttoken" else mode for mode in modes]
        if not modes or any(mode not in get_args(PoolingMode) for mode in modes):
            raise keys.refused("pooling_mode", named)
        include = keys.take("include_prompt", True)
        keys.ignore("embedding_dimension", "word_embedding_dimension")
        keys.done()
        return {"pooling": tuple(modes), "include_prompt": bool(include)}

    def layer(self, kind: str, folder: str) -> Dense | Normalize:
        """A module behind the pooling."""
        if kind not in ("Dense", "Normalize"):
            raise self._checkpoint.refusal(
                f"its module {kind} is not supported; Sealign reads Transformer, Pooling, Dense and Normalize"
            )
        keys = self._config(folder, missing_is_empty=kind == "Normalize")
        for name in ("module_input_name", "module_output_name"):
            keys.expect(name, "sentence_embedding", None)
        if kind == "Normalize":
            keys.done()
            return Normalize()
        activation = str(keys.take("activation_function", "torch.nn.modules.activation.Tanh"))
        name = activation.rpartition(".")[2]
        if not activation.startswith("torch.nn.") or name not in ACTIVATIONS:
            raise keys.refused("activation_function", activation)
        inputs, outputs = keys.take("in_features", None), keys.take("out_features", None)
        dense = Dense(
            folder, inputs, outputs, bool(keys.take("bias", True)), name, bool(keys.take("use_residual", False))
        )
        keys.done()
        return dense

    def top(self) -> dict[str, Any]:
        """Prompts and the number of dimensions."""
        file = "config_sentence_transformers.json"
        keys = _Keys(self._checkpoint, file, self._checkpoint.read_json(file) or {})
        keys.expect("model_type", "SentenceTransformer")
        keys.ignore("__version__", "requirements", "similarity_fn_name")
        prompts, default = keys.take("prompts", {}), keys.take("default_prompt_name", None)
        truncate = keys.take("truncate_dim", None)
        keys.done()
        if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
            raise keys.refused("prompts", "a value that is not a text")
        prompts = {name: text or "" for name, text in prompts.items()}
        if default is not None and default not in prompts:
            raise keys.refused("default_prompt_name", default)
        return {"prompts": prompts, "default_prompt": default, "truncate_dim": truncate}

    def _config(self, folder: str, *, missing_is_empty: bool = False) -> _Keys:
        file = f"{folder}/config.json"
        entries = self._checkpoint.read_json(file)
        if entries is None and missing_is_empty:
            entries = {}
        return _Keys(self._checkpoint, file, entries)


class _Keys:
    """The entries of one JSON object, each of which must be taken, expected or ignored by name."""

    def __init__(self, checkpoint: Checkpoint, file: str, entries: Any) -> None:
        if not isinstance(entries, dict):
            raise checkpoint.refusal(f"{file} is missing, or is not a JSON object; restore the file")
        self._checkpoint, self.file, self._left = checkpoint, file, dict(entries)

    def take(self, key: str, default: Any) -> Any:
        """The value of a key."""
        return self._left.pop(key, default)

    def ignore(self, *keys: str) -> None:
        """Drop keys that do not change embeddings."""
        for key in keys:
            self._left.pop(key, None)

    def expect(self, key: str, *values: Any) -> None:
        """Refuse a key with another value than these; a missing key is right."""
        if key in self._left and (value := self._left.pop(key)) not in values:
            raise self.refused(key, value)

    def done(self) -> None:
        """Refuse keys that nobody asked for."""
        if self._left:
            raise self._checkpoint.refusal(
                f"{self.file}: the key {min(self._left)!r} is not supported; choose another model, or remove the key "
                "if you know that it does not change embeddings"
            )

    def refused(self, key: str, value: Any) -> InvalidInputError:
        """An error about a key's value."""
        return self._checkpoint.refusal(f"{self.file}: {key} = {value!r} is not supported; choose another model")
