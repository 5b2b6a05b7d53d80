"""The head to serve behind a map, from class statistics alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MappedChannel
from sealign.errors import InvalidInputError
from sealign.files import load_arrays, save_arrays
from sealign.heads.calibration import fit_temperature, two_digits
from sealign.heads.discriminant import discriminant_head
from sealign.heads.linear import LinearHead
from sealign.heads.margins import label_precision
from sealign.heads.profile import Measures, TaskProfile
from sealign.heads.profiling import simulated, simulated_loss
from sealign.heads.publishing import ACCURACY_STEP, power_of_two, rounded, standard_error
from sealign.heads.served import ServedHead
from sealign.heads.trained import TrainedHead

Matrix = NDArray[np.float64]

_FORMAT = "sealign.calibrated-head/2"
_PROMISES = ("accuracy", "margin", "precision", "fitted", "kept")

_PREFERRED = 2.0
"""Standard errors by which the trained head must be more accurate; the discriminant is the prior."""

_SEPARATED = 0.8
"""AUROC against outliers of the head's own kind, at least, for thresholds to mean anything."""

_MISFIT = 0.045
"""Standard deviation of what a channel, learned from public texts, gets wrong about a task's accuracy.

It does not grow with the task's reach beyond these texts. `python -m tests.benchmarks.promises` measures it, over three
clients and two silos, with texts like the silo's own that nobody has trained on.
"""


_KEPT = (0.7, 1.0)
"""Least and largest share of a task's texts that reached thresholds meant for 95 %, in 95 % of cases.

Behind a map nothing on the silo's side predicts it: not the reach, nor how far simulated shares move when the noise is
halved or doubled. `python -m tests.benchmarks.promises` measures it, and every `sealign-lab evaluate`.
"""


@dataclass(frozen=True, eq=False)
class CalibratedHead:
    """A head and what is promised of it. Logits are log-probabilities up to a constant: their temperature is 1.

    Attributes:
        head: all outputs.
        accuracy: promised of texts distributed as the silo's own, in steps of 0.005; None where nothing is known of
            the map.
        margin: the promise holds within this much in about 95 % of cases.
        ood: thresholds by score, the deciding score first; none where they would mean nothing.
        precision: the largest error of a logit with which 99 % of texts retain their label.
        fitted: whether the head was fitted to the map.
        kept: least and largest share of the task's texts that reach the deciding threshold, in about 95 % of cases;
            None where thresholds were not set for the map.
    """

    head: ServedHead
    accuracy: float | None
    margin: float | None
    ood: Mapping[str, float]
    precision: float
    fitted: bool
    kept: tuple[float, float] | None = None

    @classmethod
    def unmapped(cls, trained: TrainedHead) -> CalibratedHead:
        """Return the silo's trained head, where nothing is known of the map."""
        return cls(ServedHead(trained.head), None, None, trained.ood, trained.precision, fitted=False)

    def save(self, path: Path, made_of: str) -> None:
        """Write one safetensors file, atomically, readable by its owner only.

        Args:
            path: of the file.
            made_of: names all that the head follows from.

        Raises:
            StorageError: the file could not be written; the previous one is intact.
        """
        head = self.head
        arrays = {"weight": head.weight, "bias": head.bias}
        facts = {name: getattr(self, name) for name in _PROMISES} | {
            "labels": head.head.labels,
            "reject": head.reject,
            "ood": list(self.ood.items()),
        }
        metadata = {"format": _FORMAT, "made_of": made_of, "facts": json.dumps(facts)}
        save_arrays(path, arrays, metadata, mode=0o600)

    @classmethod
    def load(cls, path: Path, made_of: str) -> CalibratedHead | None:
        """Read what :meth:`save` wrote; None if the file's head follows from something else.

        Raises:
            StorageError: missing, or not a safetensors file.
            InvalidInputError: a safetensors file that is not a whole head.
        """
        arrays, metadata = load_arrays(path)
        if (metadata.get("format"), metadata.get("made_of")) != (_FORMAT, made_of):
            return None
        try:
            facts = json.loads(metadata["facts"])
            weight, bias, labels = arrays["weight"], arrays["bias"], tuple(facts["labels"])
            if weight.dtype != np.float64 or bias.dtype != np.float64:
                raise InvalidInputError("arrays are not float64")
            classes = len(labels)
            linear = LinearHead(weight[:, :classes], bias[:classes], labels)
            head = ServedHead(linear, facts["reject"], weight[:, classes:], bias[classes:])
            told = {name: facts[name] for name in _PROMISES}
            told["kept"] = None if told["kept"] is None else (float(told["kept"][0]), float(told["kept"][1]))
            return cls(head=head, ood=dict(facts["ood"]), **told)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"{path} is damaged ({error})") from error


def head_behind(
    channel: MappedChannel, own: LinearHead, profile: TaskProfile, *, directions: int = 0, fit: bool = True
) -> CalibratedHead:
    """Return the head to serve behind a map: a discriminant fitted to it, or the silo's trained head.

    Both were judged when the profile was measured, on rows that neither had seen, and each is judged by the blur that
    makes the task as hard for it as the map does: a map harms a trained head more than a blur that is as hard for a
    fitted one. The trained head is served if it promises more by two standard errors. A head is fitted to the channel
    of texts that the map has seen, and judged behind that of texts which it has not. No row of the silo enters: the
    result is a function of the map, the head and the profile, the same however often it is asked for.

    Args:
        channel: from the silo's embeddings to mapped ones.
        own: trained on the silo's embeddings.
        profile: of the task.
        directions: of the linear Mahalanobis score; a discriminant's only, and only with outliers.
        fit: whether a fitted head may be served.

    Raises:
        InvalidInputError: shapes that do not fit together.
    """
    channel = channel.noisier(channel.reach(profile.statistics.total))
    outliers = profile.outliers and profile.outliers.through(channel)
    mapped = profile.statistics.through(channel)
    head = discriminant_head(mapped, profile.shrinkage, outliers, directions if outliers else 0)
    rows, targets = simulated(profile.statistics.through(channel.unseen_texts()))
    ours = _Judged.of(head, profile.fitted, rows, targets)
    theirs = _Judged.of(ServedHead(own), profile.trained, rows, targets)
    least = ours.accuracy + _PREFERRED * standard_error(ours.accuracy, profile.rows)
    fitted = fit and theirs.accuracy <= least
    judged = ours if fitted else theirs
    expected = fit_temperature(judged.head.head.logits(rows), targets)
    cooled = judged.head.cooled(two_digits(expected * judged.at(judged.measures.temperatures)))
    outputs = cooled.outputs(rows)
    accuracy = rounded(judged.accuracy, ACCURACY_STEP)
    meaningful = not outliers or ours.at(profile.aurocs) >= _SEPARATED
    ood = _thresholds(cooled, outputs, judged) if meaningful else {}
    return CalibratedHead(
        head=cooled,
        accuracy=accuracy,
        margin=rounded(1.96 * float(np.hypot(_MISFIT, standard_error(accuracy, profile.rows))), ACCURACY_STEP),
        ood=ood,
        precision=label_precision(cooled.layout.logits(outputs)),
        fitted=fitted,
        kept=_KEPT if ood else None,
    )


@dataclass(frozen=True)
class _Judged:
    """A head, how hard simulated rows behind a map are for it, and figures of its kind."""

    head: ServedHead
    measures: Measures
    loss: float

    @classmethod
    def of(cls, head: ServedHead, measures: Measures, rows: Matrix, targets: NDArray[np.intp]) -> _Judged:
        return cls(head, measures, simulated_loss(head.head.logits(rows), targets))

    def at(self, values: Matrix) -> float:
        """Interpolate figures, (blurs,), for this map."""
        return self.measures.at(self.loss, values)

    @property
    def accuracy(self) -> float:
        return self.at(self.measures.accuracies)


def _thresholds(head: ServedHead, outputs: Matrix, judged: _Judged) -> dict[str, float]:
    """Quantiles of simulated scores, each where 95 % of real rows were above it, in steps of about their error."""
    thresholds = {}
    for name, scores in head.layout.scores(outputs).items():
        if name not in judged.measures.tails:
            continue
        tail = judged.at(judged.measures.tails[name])
        step = power_of_two(max(float(scores.std()) / 16.0, 1e-9))
        thresholds[name] = rounded(float(np.quantile(scores, tail)), step)
    return thresholds
