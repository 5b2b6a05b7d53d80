"""What to evaluate: a TOML file of encoders, pairs, datasets, public sets and pairs for generation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sealign.errors import InvalidInputError, NotFoundError, StorageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

Count = Annotated[int, Field(ge=1)]
Rows = Annotated[int, Field(ge=100)]
Name = Annotated[str, Field(pattern=r"^[\w.+-]+$", max_length=60)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PairSpec(_Table):
    """A client's encoder and a silo's. Limits hold for this pair beside those of datasets and public sets."""

    client: Name
    silo: Name
    n: Annotated[int, Field(ge=20)] | None = Field(default=None, description="Public texts, instead of the spec's n.")
    max_public: Count | None = Field(default=None, description="Most texts of each public set's file to draw from.")
    max_train: dict[Name, Count] = Field(
        default_factory=dict, description="Most training texts by dataset; key `default` for all others."
    )
    max_test: Count | None = None
    max_outliers: Count | None = None
    max_exposure: Count | None = None

    @property
    def name(self) -> str:
        """The pair's name in reports and in ``--only``."""
        return f"{self.client}-{self.silo}"


class DatasetSpec(_Table):
    """A classification task of the silo, and what it should be told apart from."""

    train: Path
    test: Path
    outliers: Path | None = Field(default=None, description="TSV as train, or one text a line.")
    exposure: Path | None = Field(default=None, description="Texts for outlier exposure, instead of the spec's.")
    max_train: Count = 4000
    max_test: Count = 1000
    max_outliers: Count = 1000
    description: str = Field(default="", description="What a published task description would say.")


class PublicSpec(_Table):
    """Public texts to draw from: a file of lines, the set that ships, or the union of other public sets."""

    file: Path | None = None
    shipped: Literal["general"] | None = None
    union: tuple[Name, ...] = ()
    max_texts: Count = 8000
    words: Count | None = Field(default=None, description="Keep the first so many words of each line.")

    @model_validator(mode="after")
    def _one_source(self) -> PublicSpec:
        if [self.file is not None, self.shipped is not None, len(self.union) > 1].count(True) != 1:
            raise ValueError(
                'give either `file`, `shipped = "general"`, or `union` with the names of two public sets or more'
            )
        if self.union and self.words is not None:
            raise ValueError("`words` belongs to the sets of the union")
        return self


class GenerationSpec(_Table):
    """A client's causal model whose states are to drive the head of a silo's; texts are one a line."""

    client: Name
    silo: Name
    label: Name = Field(default="", alias="name", description="In reports and in --only; CLIENT-SILO if unset.")
    public: Path
    test: Path
    rows: Rows = Field(default=16_000, description="Positions of the silo's tokens to align over.")
    sizes: tuple[Rows, ...] = Field(default=(), description="Fewer positions, for a curve of perplexity.")
    test_rows: Count = Field(default=2000, description="Positions to measure on.")
    epochs: Annotated[int, Field(ge=0)] = Field(default=5, description="Of refining by divergence; 0 for none.")
    encrypted_rows: Annotated[int, Field(ge=0)] = Field(default=32, description="Of the test's, through ciphertexts.")
    prompts: tuple[str, ...] = Field(default=(), description="Beginnings of samples.")
    tokens: Count = Field(default=100, description="Of a sample.")

    @property
    def name(self) -> str:
        """The pair's name in reports and in ``--only``."""
        return self.label or f"{self.client}-{self.silo}"


class SyntheticSpec(_Table):
    """Texts that stand for a task's private ones, under differential privacy."""

    epsilon: Annotated[float, Field(gt=0, le=100)] = 4.0
    delta: Annotated[float, Field(gt=0, le=0.01)] = 1e-5
    count: Count = Field(default=128, description="Of the texts.")
    rounds: Annotated[int, Field(ge=2, le=10)] = 3
    public: str = Field(default="general", description="Public texts to begin with, as commands take them.")
    model: Name | None = Field(default=None, description="The encoder whose model writes; without one, public texts.")
    tokens: Annotated[int, Field(ge=4)] = Field(default=48, description="Most of them that are written for a text.")


class EvaluationSpec(_Table):
    """A whole evaluation: of classification, of generation, or of both. Relative paths are relative to the spec's file.

    Attributes:
        encoders: as the command line takes them, by name.
        n: public texts over which a pair is aligned, drawn anew for each seed.
        sizes: numbers of public texts for the curve of accuracy; those above a pair's n are left out.
        seeds: draw the public texts, the few-shot texts and the heads' split.
        few_shot: numbers of unlabelled task texts that few-shot methods may use.
        encrypted: methods sent through the encrypted path, beside the best one of each cell.
        encrypted_examples: test texts sent through it; fewer if the test set is smaller.
        exposure: texts for outlier exposure, one a line; by default those that ship with Sealign.
        max_exposure: most of them.
        methods: by name; all if empty.
        curve: methods whose accuracy is measured at all sizes.
        generation: pairs of causal models.
        synthetic: how the texts of synthetic methods are made; None for no such methods.
    """

    encoders: dict[Name, str] = Field(min_length=1)
    pairs: tuple[PairSpec, ...] = ()
    datasets: dict[Name, DatasetSpec] = {}
    public: dict[Name, PublicSpec] = {}
    n: Annotated[int, Field(ge=20)] = 4000
    sizes: tuple[Annotated[int, Field(ge=20)], ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1, 2), min_length=1)
    few_shot: tuple[Count, ...] = (32, 64, 128)
    encrypted: tuple[str, ...] = ("ridge",)
    encrypted_examples: Annotated[int, Field(ge=1)] = 500
    exposure: Path | None = None
    max_exposure: Count = 2000
    methods: tuple[str, ...] = ()
    curve: tuple[str, ...] = ("ridge",)
    generation: tuple[GenerationSpec, ...] = ()
    synthetic: SyntheticSpec | None = None

    @model_validator(mode="after")
    def _something_whole(self) -> EvaluationSpec:
        parts = (self.pairs, self.datasets, self.public)
        if any(parts) != all(parts) or not (self.pairs or self.generation):
            raise ValueError("give `pairs`, `datasets` and `public` for classification, `generation`, or all four")
        return self

    @classmethod
    def load(cls, path: Path) -> EvaluationSpec:
        """Read a spec; its paths become absolute.

        Raises:
            NotFoundError, StorageError: the file is missing or cannot be read.
            InvalidInputError: it is not TOML, or a key is missing, unknown or out of bounds, by name.
        """
        try:
            content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no spec {path}") from error
        except OSError as error:
            raise StorageError(f"could not read {path}: {error.strerror}") from error
        except ValueError as error:  # not TOML, or not UTF-8
            raise InvalidInputError(f"{path} is not TOML: {error}") from None
        try:
            spec = cls.model_validate(content)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            raise InvalidInputError(f"{path}: {faults}") from None
        spec = spec._resolved(path.resolve().parent)
        spec._check_names(path)
        return spec

    def _resolved(self, base: Path) -> EvaluationSpec:
        def below(path: Path | None) -> Path | None:
            return None if path is None else base / path

        datasets = {
            name: dataset.model_copy(
                update={key: below(getattr(dataset, key)) for key in ("train", "test", "outliers", "exposure")}
            )
            for name, dataset in self.datasets.items()
        }
        public = {name: texts.model_copy(update={"file": below(texts.file)}) for name, texts in self.public.items()}
        encoders = {name: _encoder_below(base, given) for name, given in self.encoders.items()}
        generation = tuple(
            pair.model_copy(update={"public": base / pair.public, "test": base / pair.test}) for pair in self.generation
        )
        return self.model_copy(
            update={
                "datasets": datasets,
                "public": public,
                "encoders": encoders,
                "exposure": below(self.exposure),
                "generation": generation,
            }
        )

    def _check_names(self, path: Path) -> None:
        """Refuse names that nothing has, and things named twice."""
        faults = []
        for key, pairs in (("pairs", self.pairs), ("generation", self.generation)):
            for number, pair in enumerate(pairs):
                for side in ("client", "silo"):
                    faults += _unknown(f"{key}.{number}.{side}", [getattr(pair, side)], self.encoders)
            names = [pair.name for pair in pairs]
            faults += [f"{key}: {name} occurs twice" for name in sorted(set(names)) if names.count(name) > 1]
        for number, classified in enumerate(self.pairs):
            faults += _unknown(f"pairs.{number}.max_train", classified.max_train, {*self.datasets, "default"})
        for number, generated in enumerate(self.generation):
            if len(set(generated.sizes)) != len(generated.sizes) or max(generated.sizes, default=0) >= generated.rows:
                faults.append(f"generation.{number}.sizes: give distinct numbers below rows, {generated.rows}")
        if self.synthetic is not None and self.synthetic.model is not None:
            faults += _unknown("synthetic.model", [self.synthetic.model], self.encoders)
        plain = [name for name, texts in self.public.items() if not texts.union]
        for name, texts in self.public.items():
            faults += _unknown(f"public.{name}.union", texts.union, plain)
        for key in ("seeds", "sizes", "few_shot"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                faults.append(f"{key}: a number occurs twice")
        if faults:
            raise InvalidInputError(f"{path}: {'; '.join(faults)}")


def _unknown(key: str, names: Any, known: Any) -> list[str]:
    return [f"{key}: there is no {name!r} among {', '.join(known)}" for name in names if name not in known]


def _encoder_below(base: Path, given: str) -> str:
    """An encoder's model directory, where there is one below ``base``, as an absolute path."""
    source, mark, options = given.partition("?")
    family, colon, model = source.rpartition(":")
    if model and (base / model).is_dir():
        model = str(base / model)
    return f"{family}{colon}{model}{mark}{options}"
