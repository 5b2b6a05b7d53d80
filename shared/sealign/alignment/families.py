"""Families of affine maps beyond ridge regression, and the choice among them on texts held out.

Each family makes its maps from moments alone. How much variance of held-out embeddings a map explains says little about
how well a head works behind it, and always favours ridge, which shrinks what it predicts badly. How well held-out
texts are found again among one another by their mapped embeddings says more, and needs no label
(`python -m tests.benchmarks.choices` compares both with the accuracy of heads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

import numpy as np

from sealign.alignment.affine import AffineMap
from sealign.alignment.regression import Spectrum
from sealign.alignment.ridge import affine_map, check_statistics
from sealign.alignment.statistics import Matrix, Moments, RidgeStatistics
from sealign.errors import InvalidInputError

_RANKS = (32, 64, 128, 256)
_POWERS = (0.0, 0.5)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One map of a family, between centred rows.

    Attributes:
        family: its name.
        penalty: as a multiple of the mean eigenvalue of XᵀX; zero where there is none.
        weight: (dim_source, dim_target).
    """

    family: str
    penalty: float
    weight: Matrix


@dataclass(frozen=True, eq=False)
class ScoredCandidate:
    """A candidate fitted without fold 0.

    Attributes:
        candidate: as it was fitted.
        index: among its family's.
        score: its :func:`retrieval` of a sample of fold 0.
    """

    candidate: Candidate
    index: int
    score: float


def ridge_family(moments: Moments) -> Iterator[Candidate]:
    """W = (XᵀX + λ)⁻¹XᵀY."""
    spectrum = Spectrum(moments.xx, moments.xy)
    unit = float(np.mean(spectrum.values))
    for penalty in (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
        yield Candidate("ridge", penalty, spectrum.weight(penalty * unit))


def procrustes_family(moments: Moments) -> Iterator[Candidate]:
    """W = s·UVᵀ of XᵀY = UDVᵀ, with s = tr(D)/tr(UᵀXᵀXU): the rotation, or its part, and the scale nearest to Y.

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31(1), 1966; for
    embeddings Smith et al., "Offline bilingual word vectors, orthogonal transformations and the inverted softmax",
    ICLR 2017, section 2.
    """
    left, values, right = np.linalg.svd(moments.xy, full_matrices=False)
    yield Candidate("procrustes", 0.0, values.sum() / np.sum(left * (moments.xx @ left)) * (left @ right))


def reduced_rank_family(moments: Moments) -> Iterator[Candidate]:
    """Ridge regression whose fitted values are projected to their leading r directions.

    Source: Mukherjee and Zhu, "Reduced rank ridge regression and its kernel extensions", Statistical Analysis and Data
    Mining 4(6), 2011, section 2: with Ŷ the fitted values of the data augmented by the penalty, ŶᵀŶ = WᵀXᵀY.
    """
    spectrum = Spectrum(moments.xx, moments.xy)
    unit = float(np.mean(spectrum.values))
    for penalty in (1.0, 0.3, 0.1):
        weight = spectrum.weight(penalty * unit)
        fitted = weight.T @ moments.xy
        _, directions = np.linalg.eigh((fitted + fitted.T) / 2)
        for rank in dict.fromkeys(min(rank, len(directions)) for rank in _RANKS):
            leading = directions[:, -rank:]
            yield Candidate("reduced-rank", penalty, weight @ leading @ leading.T)


def cca_family(moments: Moments) -> Iterator[Candidate]:
    """W = A⁻¹ᐟ²·U·Dᵖ·Vᵀ·B¹ᐟ² of A⁻¹ᐟ²·XᵀY·B⁻¹ᐟ² = UDVᵀ, with A = XᵀX + λ, B = YᵀY + λ, and p below 1.

    Rows are whitened, canonical directions are matched and weighted by their correlations to the power p, and the
    target's spread is given back. With p = 1 it is ridge regression, whose shrinking of canonical coordinates Breiman
    and Friedman would take further (p about 2: "Predicting multivariate responses in multiple linear regression",
    Journal of the Royal Statistical Society B 59(1), 1997, section 3); a head that was trained on embeddings that
    nobody shrank wants the opposite. Source: Artetxe, Labaka and Agirre, "Generalizing and improving bilingual word
    embedding mappings with a multi-step framework of linear transformations", AAAI 2018, section 3.
    """
    for penalty in (3.0, 1.0, 0.3, 0.1):
        whiten, _ = _roots(moments.xx, penalty)
        whiten_target, colour = _roots(moments.yy, penalty)
        left, correlations, right = np.linalg.svd(whiten @ moments.xy @ whiten_target, full_matrices=False)
        for power in _POWERS:
            yield Candidate("cca", penalty, whiten @ (left * correlations**power) @ right @ colour)


FAMILIES: Mapping[str, Callable[[Moments], Iterator[Candidate]]] = MappingProxyType(
    {"ridge": ridge_family, "procrustes": procrustes_family, "reduced-rank": reduced_rank_family, "cca": cca_family}
)
"""By name, the simplest first."""


def fit_map(
    statistics: RidgeStatistics,
    families: Sequence[str] = tuple(FAMILIES),
    *,
    source_fingerprint: str,
    target_fingerprint: str,
    public_set: str,
) -> AffineMap:
    """The map, of these families, by which held-out texts are found again most easily.

    Every candidate is fitted without fold 0 and scored by :func:`retrieval` on a sample of it; the best is fitted once
    more to all rows. The first of equals is taken. Like :func:`fit_ridge`'s, the map carries its channel.

    Args:
        statistics: at least two rows a fold.
        families: names among `FAMILIES`.
        source_fingerprint: of the encoder whose embeddings were X (the client's).
        target_fingerprint: of the encoder whose embeddings were Y (the silo's).
        public_set: digest of the texts.

    Raises:
        InvalidInputError: an unknown family or none; or as :func:`fit_ridge`.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise InvalidInputError(f"there is no family of maps {unknown[:1]}; choose among {', '.join(FAMILIES)}")
    best = max(score_families(statistics, families), key=lambda scored: scored.score)
    chosen = refitted(statistics, best)
    train = statistics.moments(*range(1, statistics.folds))
    return affine_map(
        statistics,
        chosen.weight,
        lambda moments: _again(moments, best).weight,
        penalty=chosen.penalty,
        explained_variance=_explained_variance(best.candidate.weight, train, statistics.moments(0)),
        source_fingerprint=source_fingerprint,
        target_fingerprint=target_fingerprint,
        public_set=public_set,
        family=chosen.family,
    )


def score_families(
    statistics: RidgeStatistics, families: Sequence[str] = tuple(FAMILIES)
) -> tuple[ScoredCandidate, ...]:
    """All candidates of these families, fitted without fold 0 and scored on it.

    Raises:
        InvalidInputError: as :func:`fit_map`.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise InvalidInputError(f"there is no family of maps {unknown[:1]}; choose among {', '.join(FAMILIES)}")
    check_statistics(statistics)
    train = statistics.moments(*range(1, statistics.folds))
    sample_x, sample_y = statistics.held_out_sample()
    x, y = sample_x - train.mean_x, sample_y - train.mean_y
    return tuple(
        ScoredCandidate(candidate, index, retrieval(x @ candidate.weight, y))
        for family in families
        for index, candidate in enumerate(FAMILIES[family](train))
    )


def refitted(statistics: RidgeStatistics, scored: ScoredCandidate) -> Candidate:
    """The same candidate fitted to all rows."""
    return _again(statistics.moments(*range(statistics.folds)), scored)


def _again(moments: Moments, scored: ScoredCandidate) -> Candidate:
    return next(islice(FAMILIES[scored.candidate.family](moments), scored.index, None))


def retrieval(predicted: Matrix, actual: Matrix) -> float:
    """Mean reciprocal rank of each text among all, by the cosine of its mapped with the target embeddings: in (0, 1].

    Args:
        predicted: mapped embeddings less the target's mean, (n, d).
        actual: target embeddings less their mean, (n, d).
    """
    similarity = _directions(predicted) @ _directions(actual).T
    ranks = 1 + np.sum(similarity > np.diag(similarity)[:, None], axis=1)
    # Ties, as of a map to nothing, count as lost.
    ranks += np.sum(similarity == np.diag(similarity)[:, None], axis=1) - 1
    return float(np.mean(1.0 / ranks))


def _directions(rows: Matrix) -> Matrix:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Matrix = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return directions


def _roots(scatter: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """S⁻¹ᐟ² and S¹ᐟ² of the scatter with the penalty added, symmetric."""
    values, vectors = np.linalg.eigh(scatter)
    root = np.sqrt(np.maximum(values, 0.0) + penalty * np.mean(values))
    return vectors / root @ vectors.T, vectors * root @ vectors.T


def _explained_variance(weight: Matrix, train: Moments, held_out: Moments) -> float:
    """1 − squared error over held-out rows / that of predicting the training mean."""
    shift_y = held_out.mean_y - train.mean_y
    offset = shift_y - (held_out.mean_x - train.mean_x) @ weight
    spread = np.trace(held_out.yy)
    error = spread - 2.0 * np.sum(weight * held_out.xy) + np.sum((held_out.xx @ weight) * weight)
    error += held_out.count * offset @ offset
    return float(1.0 - error / (spread + held_out.count * shift_y @ shift_y))
