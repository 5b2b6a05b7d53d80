"""A head with what the silo promises about it: temperature, accuracy, thresholds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays
from sealign.heads.linear import LinearHead
from sealign.heads.ood import SCORES

_FORMAT = "sealign.head/1"
_MEASURES = (
    "temperature",
    "precision",
    "held_out_accuracy",
    "calibration_error_before",
    "calibration_error_after",
    "held_out_rows",
    "penalty",
)


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A linear head and what was measured on rows held out from its training.

    Attributes:
        head: the head itself, divided by its temperature: logits are log-probabilities up to a constant, whatever
            scale the head was trained or imported with, so that a plan's precision means the same for every head.
        held_out_accuracy: fraction of held-out rows whose largest logit is the right one; in steps of 0.005, its
            noise and its standard error √(a(1−a)/n) added.
        calibration_error_before: expected calibration error (15 bins) of the raw logits.
        calibration_error_after: the same of the head's logits.
        ood: for each score of :data:`sealign.heads.ood.SCORES`, the value that about 95 % of the held-out
            rows reach; texts that score below are reported as out of distribution.
        held_out_rows: number of rows behind these measures.
        temperature: that the logits were divided by; for the record.
        precision: the largest error of a logit, a power of two, with which 99 % of held-out rows retain their label.
        penalty: chosen in training; None for a head that was not trained here.

    Raises:
        InvalidInputError: measures that are missing or not finite, or unknown scores.
    """

    head: LinearHead
    held_out_accuracy: float
    calibration_error_before: float
    calibration_error_after: float
    ood: Mapping[str, float]
    held_out_rows: int
    temperature: float
    precision: float
    penalty: float | None = None

    def __post_init__(self) -> None:
        if set(self.ood) != set(SCORES):
            raise InvalidInputError(f"a head needs thresholds for exactly {sorted(SCORES)}")
        numbers = {name: getattr(self, name) for name in _MEASURES} | dict(self.ood)
        if self.penalty is None:
            del numbers["penalty"]
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise InvalidInputError(f"a head's {name} must be a number")
            if not math.isfinite(number):
                raise InvalidInputError(f"a head's {name} must be finite")
        if min(self.temperature, self.precision) <= 0:
            raise InvalidInputError("a head's temperature and precision must be positive")

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically, for its owner's eyes only.

        The weight is stored in torch's layout, (classes, dimension), with its labels beside it, so
        that other programs, and :func:`import_head`, read the file as a plain linear layer.

        Raises:
            StorageError: the file could not be written; the previous one is intact.
        """
        card = {name: getattr(self, name) for name in _MEASURES}
        save_arrays(
            Path(path),
            {"weight": self.head.weight.T, "bias": self.head.bias},
            {
                "format": _FORMAT,
                "labels": json.dumps(self.head.labels),
                "card": json.dumps(card | {"ood": dict(self.ood)}),
            },
            mode=0o600,
        )

    @classmethod
    def load(cls, path: str | Path) -> TrainedHead:
        """Read what :meth:`save` wrote.

        Raises:
            StorageError: missing, damaged, or not a safetensors file.
            InvalidInputError: a safetensors file that is not a trained head, or not a whole one.
        """
        arrays, metadata = load_arrays(Path(path))
        if metadata.get("format") != _FORMAT:
            raise InvalidInputError(f"{path} is not a trained head; import it with import_head, then calibrate it")
        try:
            if any(array.dtype != np.float64 for array in arrays.values()):
                raise InvalidInputError("arrays are not float64")
            labels = tuple(json.loads(metadata["labels"]))
            head = LinearHead(arrays["weight"].T, arrays["bias"], labels)
            return cls(head=head, **json.loads(metadata["card"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{path} is damaged ({error}); train again") from error
