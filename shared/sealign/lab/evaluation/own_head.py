"""Methods that serve a head trained on the silo's own embeddings: references, maps, and the client's adaptation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sealign.alignment import (
    AffineMap,
    RidgeStatistics,
    ScaledRows,
    fit_cross_covariance,
    mapped_row_norm,
    require_enough_texts,
    similarity_weights,
)
from sealign.alignment.families import refitted
from sealign.alignment.regression import cross_validated_ridge
from sealign.ckks.plan import TAIL
from sealign.defaults import ALIGNMENT_PRECISION, RECENTRED_NORM
from sealign.errors import InvalidInputError
from sealign.heads import LinearHead, class_indices, train_head
from sealign.heads.calibration import log_losses
from sealign.lab.evaluation.classifier import Classifier, Matrix, Promise
from sealign.lab.evaluation.context import NAMES, PairContext, Rows, channel_of

_PRODUCT_ERROR = ALIGNMENT_PRECISION / TAIL
"""Standard deviation of an entry's error after encrypted alignment, in units of the silo's mean dimension norm."""


def native(context: PairContext) -> Classifier:
    """The silo's head on the silo's own embeddings."""
    trained = context.task.trained
    return replace(
        Classifier.of(context.task.head), thresholds=trained.ood, promise=Promise(trained.held_out_accuracy, None)
    )


def client_own(context: PairContext) -> Classifier:
    """A head on the client's embeddings, which takes the silo's labels."""
    return Classifier.of(train_head(context.train.client, context.train_labels, seed=context.seed).head)


def ridge(context: PairContext) -> Classifier:
    """The silo's head behind the plain map."""
    return behind(context.task.head, context.ridge)


def behind(head: LinearHead, learned: AffineMap) -> Classifier:
    """A head of the silo's space, behind a map that the silo applies."""
    return Classifier.of(head.composed(learned.weight, learned.intercept))


def ridge_at_client(context: PairContext) -> Classifier:
    """The map of encrypted alignment, applied by the client; the silo adds its mean to the head's bias."""
    learned, mean = encrypted_map(context), context.Y.mean(axis=0, dtype=np.float64)
    head = context.task.head.composed(np.eye(len(mean)), mean)
    return Classifier.of(head, learned.apply, client_row_norm(context))


def encrypted_map(context: PairContext) -> AffineMap:
    """What encrypted alignment leaves with the client: a map of centred rows.

    The cross-covariance is computed in the clear, and its error drawn as the encrypted product promises it.

    Raises:
        InvalidInputError: fewer public texts than encrypted alignment demands.
    """
    source, target = ScaledRows.of(context.X), context.Y.astype(np.float64)
    require_enough_texts(len(target), context.X.shape[1], target.shape[1])
    target -= target.mean(axis=0)
    squared_norm = float(np.sum(target**2))
    error = _PRODUCT_ERROR * float(np.sqrt(squared_norm / target.shape[1]))
    product = source.rows @ target
    product += np.random.default_rng(context.seed).normal(0.0, error, product.shape)
    return fit_cross_covariance(source, product, squared_norm, error, **NAMES)


def client_row_norm(context: PairContext) -> float:
    """Of rows that a client has mapped, as the silo plans for: they are centred, so at most twice as long as the
    longest of its embeddings."""
    return mapped_row_norm(context.Y)


def few_shot(count: int) -> Callable[[PairContext], Classifier]:
    """The plain map over the public texts and so many unlabelled texts of the task."""
    return lambda context: _ridge(context, context.with_few_shot(count).statistics)


def family(*names: str) -> Callable[[PairContext], Classifier]:
    """The silo's head behind the best map of these families."""

    def fit(context: PairContext) -> Classifier:
        scored = [found for found in context.candidates if found.candidate.family in names]
        best = max(scored, key=lambda found: found.score)
        return _behind_weight(context, context.statistics, refitted(context.statistics, best).weight)

    return fit


def weighted(context: PairContext) -> Classifier:
    """The plain map over public texts that count more the nearer they are to the task's description."""
    if not len(context.description):
        raise InvalidInputError("the task has no description to weight public texts by")
    return _ridge(context, context.weighted_statistics(similarity_weights(context.Y, context.description.silo)))


def strong_penalty(context: PairContext) -> Classifier:
    """The silo's head, of the penalty that is best for mapped counterparts of held-out rows."""
    rows, labels = context.task.held_out
    mapped = channel_of(context.ridge).apply(rows)
    targets = class_indices(labels, context.task.head.labels, len(rows))
    heads = context.task.stronger
    losses = {penalty: log_losses(head.logits(mapped), targets).mean() for penalty, head in heads.items()}
    return behind(context.task.refitted(min(losses, key=lambda penalty: losses[penalty])), context.ridge)


def recentred(context: PairContext) -> Classifier:
    """The client takes the mean of its embeddings away; the silo puts that of the task's mapped texts in its place."""
    expected = channel_of(context.ridge).expected(context.task.mean[None])[0]
    head = context.task.head.composed(context.ridge.weight, expected)
    return Classifier.of(head, centring(context.queries), row_norm=RECENTRED_NORM)


def centring(queries: Rows) -> Callable[[np.typing.ArrayLike], Matrix]:
    """What the client does to recentre: it takes the mean of its own texts away."""
    mean = queries.mean(axis=0, dtype=np.float64)
    return lambda X: np.asarray(X, dtype=np.float64) - mean


def whitened(context: PairContext) -> Classifier:
    """The client gives its own texts the mean and covariance of the public ones; the silo gives them the task's.

    What the task's texts look like in the client's space is what the public texts say of the silo's labelled
    embeddings: the regression of the client's embeddings on its own. Both sides use symmetric roots, the mean
    variance added. Source: Sun, Feng and Saenko, "Return of Frustratingly Easy Domain Adaptation", AAAI 2016.
    """
    moments = context.statistics.moments(*range(context.statistics.folds))
    public = moments.xx / moments.count
    own, target = moments.yy / moments.count, moments.xy / moments.count
    backwards = np.linalg.solve(own + np.trace(own) / len(own) / 10 * np.eye(len(own)), target.T)
    task = context.task.rows.astype(np.float64) - context.task.mean
    between = task.T @ task / len(task) - own
    expected = public + backwards.T @ between @ backwards
    queries = context.queries.astype(np.float64)
    mean = queries.mean(axis=0)
    covariance = (queries - mean).T @ (queries - mean) / len(queries)
    towards_public = _root(covariance, -0.5) @ _root(public, 0.5)
    towards_task = _root(public, -0.5) @ _root(expected, 0.5)
    at_mean = channel_of(context.ridge).expected(context.task.mean[None])[0]
    head = context.task.head.composed(towards_task @ context.ridge.weight, at_mean)
    return Classifier.of(head, lambda X: (np.asarray(X, dtype=np.float64) - mean) @ towards_public, row_norm=4.0)


def _ridge(context: PairContext, statistics: RidgeStatistics) -> Classifier:
    """The silo's head behind the ridge map of these statistics; no channel is needed, which would take longer."""
    return _behind_weight(context, statistics, cross_validated_ridge(statistics.moments, statistics.folds).weight)


def _behind_weight(context: PairContext, statistics: RidgeStatistics, weight: Matrix) -> Classifier:
    """The silo's head behind the map between centred rows."""
    total = statistics.moments(*range(statistics.folds))
    return Classifier.of(context.task.head.composed(weight, total.mean_y - total.mean_x @ weight))


def _root(covariance: Matrix, power: float) -> Matrix:
    values, vectors = np.linalg.eigh(covariance)
    scaled = (np.maximum(values, 0.0) + max(float(np.mean(values)), 1e-12)) ** power
    root: Matrix = (vectors * scaled) @ vectors.T
    return root
