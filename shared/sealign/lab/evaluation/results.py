"""What an evaluation has measured, as it is written to JSON and read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

from pydantic import Field, ValidationError

from sealign.errors import StorageError
from sealign.files import PUBLIC, write_atomically
from sealign.lab.evaluation.generation_results import GenerationResult
from sealign.lab.evaluation.result import Result

Kept = TypeVar("Kept", bound=Result)

ROC_POINTS = tuple(point / 50 for point in range(51))
"""False positive rates at which curves are kept."""


class Ood(Result):
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


class Confusion(Result):
    """Test texts of one class that were taken for another."""

    label: str
    taken_for: str
    count: int


class Encrypted(Result):
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


class MethodResult(Result):
    """One method in one cell.

    Attributes:
        accuracy: over the whole test set.
        recall: share of each class's test texts that got the right answer.
        confusions: the most frequent ones.
        ood: by score; empty without outliers.
        encrypted: None where the method was not sent through the encrypted path.
        curve: accuracy by number of public texts, where it was asked for.
        promised: accuracy that the silo's card tells of texts like its own; None if none.
        margin: of the promise, about 95 % of cases; None if none.
        kept: share of the test texts that the silo's thresholds call in-distribution; None if it serves none.
        unseen: accuracy over rows of the training file that the silo did not train on; None if nothing is promised.
        unseen_kept: as ``kept``, of those rows.
    """

    accuracy: float
    recall: dict[str, float]
    confusions: tuple[Confusion, ...]
    ood: dict[str, Ood]
    encrypted: Encrypted | None = None
    curve: dict[int, float] = Field(default_factory=dict)
    promised: float | None = None
    margin: float | None = None
    kept: float | None = None
    unseen: float | None = None
    unseen_kept: float | None = None


class Cell(Result):
    """One pair, dataset, public set and seed.

    Attributes:
        n: public texts.
        train, test, outliers, unseen: numbers of texts.
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
    unseen: int = 0


class EncoderResult(Result):
    """An encoder that took part; settings as in the spec, without where its model lies."""

    name: str
    dimension: int
    fingerprint: str
    max_length: int
    pooling: str


class Report(Result):
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
        shared: methods that take unlabelled texts of the task, which the silo would have to share.
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
    shared: tuple[str, ...] = ()
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


def save(result: Result, path: Path) -> None:
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
