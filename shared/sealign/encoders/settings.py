"""Which encoder to load, and how it reads texts."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Literal, TypeAlias
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sealign.errors import InvalidInputError

LongTexts: TypeAlias = Literal["refuse", "truncate", "split"]
"""What to do with a text longer than the model's window."""

PoolingMode: TypeAlias = Literal["mean", "cls", "last", "max", "weightedmean", "mean_sqrt_len_tokens"]
"""How a text's token vectors become one vector; the modes of sentence-transformers."""

StateKind: TypeAlias = Literal["last", "forecast"]
"""What a client's causal model sends per token: its final hidden state, or that and its forecast of the next token."""

Layers: TypeAlias = tuple[int, ...] | Literal["all"]
"""Numbers of hidden layers, negative ones from the end; empty for the last one."""

ENTRY_POINT_GROUP = "sealign.encoders"


def installed_families() -> dict[str, EntryPoint]:
    """The encoder families that installed packages offer, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


class EncoderSettings(BaseModel):
    """One encoder: its family, its model, and how texts become vectors.

    ``max_length``, ``pooling``, ``layers``, the prompt and ``normalise`` change the embeddings and so the fingerprint;
    ``batch_size``, ``device`` and ``threads`` change only how fast they come, and ``long_texts`` only what
    happens to texts beyond ``max_length``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = "transformers"
    model: str = Field(default="", description="Hub name or directory; empty for family `use`.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    gguf_file: str | None = Field(
        default=None,
        pattern=r"^[^/\\]+\.gguf$",
        description="The model's weights and tokenizer, a GGUF file in its directory or repository.",
    )
    pooling: PoolingMode | None = Field(
        default=None, description="How token vectors become one; by default as the model declares, else the mean."
    )
    layers: Layers = Field(
        default=(),
        description="Layers whose mean is pooled: numbers separated by commas, -1 for the last one, or all; by default "
        "the last one.",
    )
    max_length: Annotated[int, Field(ge=8, le=131_072)] | None = Field(
        default=None,
        description="Maximum tokens read per text, never more than the model has positions; by default as the model "
        "declares, else 256.",
    )
    prompt: str | None = Field(
        default=None, description="Name of a prompt that the model declares, such as query; put before every text."
    )
    prompt_text: str | None = Field(
        default=None, description="Text put before every text; empty for none where the model has a default prompt."
    )
    long_texts: LongTexts = Field(
        default="refuse", description="What to do with texts longer than max_length: refuse, truncate or split."
    )
    states: StateKind | None = Field(
        default=None,
        description="What a client's causal model sends per token: its last state alone, or its own forecast of the "
        "next token too.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    normalise: bool = Field(default=True, description="Scale embeddings to Euclidean norm 1.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Processor threads; the family's own default where unset."
    )

    beside: EncoderSettings | None = Field(
        default=None, description="A second encoder, whose embeddings are put beside the first one's."
    )

    @model_validator(mode="after")
    def _one_prompt(self) -> EncoderSettings:
        if self.prompt is not None and self.prompt_text is not None:
            raise ValueError("give prompt or prompt_text, not both")
        return self

    @field_validator("layers", mode="before")
    @classmethod
    def _numbers(cls, given: object) -> object:
        if not isinstance(given, str) or given == "all":
            return given
        if not re.fullmatch(r"-?\d{1,4}(,-?\d{1,4})*", given):
            raise ValueError("give numbers separated by commas, such as -1,-4, or all")
        return tuple(map(int, given.split(",")))

    @classmethod
    def parse(cls, spec: str) -> EncoderSettings:
        """Read the command-line form ``family:model?option=value&option=value``.

        Without the name of an installed family in front, the whole is a transformers model. ``a+b`` names two encoders
        side by side; the second one begins with its family.
        Examples: ``transformers:sentence-transformers/all-MiniLM-L6-v2``, ``use``,
        ``./my-model?pooling=cls&max_length=128``, ``./my-model+use``.

        Raises:
            InvalidInputError: nothing is named, or an option is unknown, repeated or out of range.
        """
        families = "|".join(map(re.escape, installed_families()))
        first, *others = re.split(rf"\+(?=(?:{families})(?:[:?+]|$))", spec)
        if others:
            if len(others) > 1:
                raise InvalidInputError(f"the encoder {spec!r} names {1 + len(others)} encoders; give two at most")
            return cls.parse(first).model_copy(update={"beside": cls.parse(others[0])})
        source, _, query = spec.partition("?")
        family, _, model = source.partition(":")
        if family not in installed_families():
            family, model = "transformers", source
        if not source.strip():
            raise InvalidInputError(
                "the encoder is not named; give one as family:model, for example "
                "transformers:sentence-transformers/all-MiniLM-L6-v2, or use"
            )
        try:
            options = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise InvalidInputError(
                f"the encoder's options {query!r} are not of the form option=value&option=value"
            ) from None
        fields = {"family": family, "model": model}
        for option, value in options:
            if option in fields:
                raise InvalidInputError(f"the encoder's option {option!r} is given twice; drop one")
            if option == "beside":
                raise InvalidInputError("a second encoder is named after a plus: FIRST+FAMILY:MODEL")
            fields[option] = value
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            wrong = "; ".join(": ".join([*map(str, item["loc"][:1]), item["msg"]]) for item in error.errors())
            known = ", ".join(name for name in cls.model_fields if name not in ("family", "model", "beside"))
            raise InvalidInputError(
                f"the encoder {spec!r} cannot be used ({wrong}); its options are {known}"
            ) from error
