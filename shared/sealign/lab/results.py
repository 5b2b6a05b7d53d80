"""What an evaluation has measured, as it is written to JSON and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sealign.errors import StorageError
from sealign.files import PUBLIC, write_atomically

ROC_POINTS = tuple(point / 50 for point in range(51))
"""False positive rates at which curves are kept."""


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True)


Kept = TypeVar("Kept", bound=_Result)


class Ood(_Result):
    """How well a score tells inliers from outliers.

    Attributes:
        auroc: probability that an inlier scores above an outlier.
        fpr95: share of outliers above the threshold that 95 % of the inliers reach.
        kept: share of inliers that reach the threshold that a silo serves for 95 %; None where it serves none.
        roc: share of inliers above a threshold, at the shares of outliers in `ROC_POINTS`.
    """

    auroc: float
    fpr95: float
    kept: float | None = None
    roc: tuple[float, ...]


class Confusion(_Result):
    """Test texts of one class that were taken for another."""

    label: str
    taken_for: str
    count: int


class Encrypted(_Result):
    """The same classifier through the encrypted path.

    Attributes:
        examples: test texts that were sent.
        accuracy: over them, from decrypted logits.
        clear_accuracy: over them, in the clear.
        agreement: share of them with the same answer both ways.
        largest_error: of an output.
        ood: as in the clear.
    """

    examples: int
    accuracy: float
    clear_accuracy: float
    agreement: float
    largest_error: float
    ood: dict[str, Ood]


class MethodResult(_Result):
    """One method in one cell.

    Attributes:
        accuracy: over the whole test set.
        recall: share of each class's test texts that got the right answer.
        confusions: the most frequent ones.
        ood: by score; empty without outliers.
        encrypted: None where the method was not sent through the encrypted path.
        curve: accuracy by number of public texts, where it was asked for.
    """

    accuracy: float
    recall: dict[str, float]
    confusions: tuple[Confusion, ...]
    ood: dict[str, Ood]
    encrypted: Encrypted | None = None
    curve: dict[int, float] = {}


class Cell(_Result):
    """One pair, dataset, public set and seed.

    Attributes:
        n: public texts.
        train, test, outliers: numbers of texts.
        cka: linear centred kernel alignment of the two encoders over the public texts.
        explained_variance: of the silo's embeddings, by the plain map, over held-out public texts.
        methods: by name.
        left_out: methods that cannot be applied here, and why.
    """

    pair: str
    dataset: str
    public: str
    seed: int
    n: int
    train: int
    test: int
    outliers: int
    cka: float
    explained_variance: float
    methods: dict[str, MethodResult]
    left_out: dict[str, str]


class CausalResult(_Result):
    """A causal model that took part.

    Attributes:
        name: in the spec.
        model: without where it lies.
        dimension: of a hidden state.
        vocabulary: outputs of its head.
        fingerprint: of weights and tokenizer.
    """

    name: str
    model: str
    dimension: int
    vocabulary: int
    fingerprint: str


class Prediction(_Result):
    """What the silo's head predicts from mapped states, over the test texts.

    Attributes:
        top1: share of positions where the same token is likeliest as from the silo's own state.
        top5: share where the silo's likeliest token is among the five likeliest.
        perplexity: of the tokens that follow.
        divergence: mean Kullback-Leibler divergence from the silo's own distribution, nats a token.
    """

    top1: float
    top5: float
    perplexity: float
    divergence: float


class EncryptedPrediction(_Result):
    """The same map and head through the encrypted path.

    Attributes:
        positions: test positions that were sent.
        agreement: share of them with the same likeliest token as in the clear.
        largest_error: of a logit.
        precision: promised for it.
        parameters: name of the parameter set.
    """

    positions: int
    agreement: float
    largest_error: float
    precision: float
    parameters: str


class Sample(_Result):
    """How the silo's own model goes on from a prompt, and how its head does behind the client's model."""

    prompt: str
    own: str
    mapped: str


class GenerationResult(_Result):
    """One pair of causal models.

    Attributes:
        name: of the pair.
        client, silo: the models.
        rows: positions aligned over.
        epochs: of refinement.
        positions: test positions with a token that follows.
        explained_variance: of the silo's states, by ridge, over held-out public positions.
        own_perplexity: of the tokens that follow, by the silo's own states.
        own_agreement: share of positions where the two models, unaligned, find the same text likeliest.
        jaccard: of the two vocabularies.
        exact_match: share of the silo's tokens that the client's tokenizer cuts exactly alike.
        boundary_match: share of them at whose end one of the client's tokens ends.
        ridge: the map that ridge regression gives.
        refined: that map refined by divergence; None without epochs.
        curve: perplexity by number of positions, for each map.
        encrypted: of the last map; None if it was not asked for.
        samples: by the last map.
        seconds: by step, of one run; those of reading are of the first.
    """

    name: str
    client: CausalResult
    silo: CausalResult
    rows: int
    epochs: int
    positions: int
    explained_variance: float
    own_perplexity: float
    own_agreement: float
    jaccard: float
    exact_match: float
    boundary_match: float
    ridge: Prediction
    refined: Prediction | None
    curve: dict[str, dict[int, float]]
    encrypted: EncryptedPrediction | None
    samples: tuple[Sample, ...]
    seconds: dict[str, float]

    @property
    def best(self) -> Prediction:
        """Of the last map."""
        return self.refined or self.ridge


class EncoderResult(_Result):
    """An encoder that took part; settings as in the spec, without where its model lies."""

    name: str
    dimension: int
    fingerprint: str
    max_length: int
    pooling: str


class Report(_Result):
    """A whole evaluation.

    Attributes:
        created: ISO 8601 time, UTC.
        command: that made it.
        machine: processor and number of cores.
        versions: of packages that matter.
        n, seeds: of the spec.
        encoders: by their name in the spec.
        methods: description of each, by name, in the order of tables.
        references: methods that no client of the protocol has.
        cells: everything measured of classification.
        generation: everything measured of generation.
    """

    created: str
    command: str
    machine: str
    versions: dict[str, str]
    n: int
    seeds: tuple[int, ...]
    encoders: dict[str, EncoderResult]
    methods: dict[str, str]
    references: tuple[str, ...]
    cells: tuple[Cell, ...]
    generation: tuple[GenerationResult, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A mean over seeds and the sample standard deviation, None for a single seed."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Measured | None:
        """None of no values."""
        if not values:
            return None
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))


def save(result: BaseModel, path: Path) -> None:
    """Write as JSON, atomically.

    Raises:
        StorageError: the file could not be written.
    """
    write_atomically(path, (result.model_dump_json(indent=1) + "\n").encode(), mode=PUBLIC)


def load_result(kind: type[Kept], path: Path) -> Kept | None:
    """A result that :func:`save` wrote; None if there is no such file.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise StorageError(f"{path} cannot be read as a result; delete it to measure it again") from error
