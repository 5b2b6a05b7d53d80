"""Which encoder to load, and how it reads texts."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Literal
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealign.errors import InvalidInputError

ENTRY_POINT_GROUP = "sealign.encoders"


def installed_families() -> dict[str, EntryPoint]:
    """The encoder families that installed packages offer, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


class EncoderSettings(BaseModel):
    """One encoder: its family, its model, and how texts become vectors.

    ``max_length``, ``pooling`` and ``normalise`` change the embeddings and so the fingerprint;
    ``batch_size``, ``device`` and ``threads`` change only how fast they come.
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
    pooling: Literal["mean", "cls", "last"] = "mean"
    max_length: Annotated[int, Field(ge=8, le=131_072)] = Field(
        default=256,
        description="Most tokens read of a text, never more than the model has positions.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    normalise: bool = Field(default=True, description="Scale embeddings to Euclidean norm 1.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Processor threads; the family's own default where unset."
    )

    @classmethod
    def parse(cls, spec: str) -> EncoderSettings:
        """Read the command-line form ``family:model?option=value&option=value``.

        Without the name of an installed family in front, the whole is a transformers model.
        Examples: ``transformers:sentence-transformers/all-MiniLM-L6-v2``, ``use``,
        ``./my-model?pooling=cls&max_length=128``.

        Raises:
            InvalidInputError: nothing is named, or an option is unknown, repeated or out of range.
        """
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
            fields[option] = value
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            known = ", ".join(name for name in cls.model_fields if name not in ("family", "model"))
            raise InvalidInputError(
                f"the encoder {spec!r} cannot be used ({wrong}); its options are {known}"
            ) from error
