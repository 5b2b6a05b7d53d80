"""Methods that serve a head fitted to what a map makes of the silo's embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from sealign.alignment import AffineMap
from sealign.defaults import RECENTRED_NORM
from sealign.heads import CalibratedHead, OutputLayout, train_head
from sealign.lab.evaluation.classifier import Classifier, Matrix, Promise, Score, as_it_is
from sealign.lab.evaluation.context import PairContext, channel_of
from sealign.lab.evaluation.own_head import behind, centring, client_row_norm, encrypted_map

_ADAPTED = 300
"""Texts of its own that a client adapts to, at most."""


def round_trip(context: PairContext) -> Classifier:
    """Logistic regression on z·M: the silo's labelled embeddings as the public texts' mapped ones regress on its own.

    With the penalty of the silo's own head; the plain map.
    """
    expected = channel_of(context.ridge).expected(context.task.rows)
    penalties = [float(context.task.trained.penalty or 1e-3)]
    head = train_head(expected, context.train_labels, penalties=penalties, seed=context.seed).head
    return behind(head, context.ridge)


def discriminant(context: PairContext) -> Classifier:
    """A discriminant fitted through the plain map's channel, with its reject margin and Mahalanobis score."""
    return _at_silo(context.head_behind_ridge, context.ridge)


def discriminant_chosen_map(context: PairContext) -> Classifier:
    """The same for the map of the best family."""
    learned = context.chosen_map
    return _at_silo(context.task.head_behind(channel_of(learned)), learned)


def ceiling(context: PairContext) -> Classifier:
    """The discriminant behind the map over the task's own training texts, as many as there are, by both encoders."""
    return discriminant(replace(context, public=context.train))


def names(context: PairContext) -> Classifier:
    """The discriminant, with the names of the labels among the public texts: what a silo serves by default."""
    return discriminant(context.named)


def adapt(context: PairContext) -> Classifier:
    """The same; the client centres its embeddings on the mean of some texts of its own, as `sealign adapt` does.

    The silo puts the mean of the task's mapped embeddings in its place.
    """
    context = context.named
    expected = channel_of(context.ridge).expected(context.task.mean[None])[0]
    return _served(
        context.head_behind_ridge,
        context.ridge.weight,
        expected,
        centring(context.queries[:_ADAPTED]),
        row_norm=RECENTRED_NORM,
    )


def discriminant_at_client(context: PairContext) -> Classifier:
    """The discriminant for a map that the client keeps, of whose fit to the public texts it tells the silo."""
    learned = encrypted_map(context)
    channel = channel_of(learned, context.Y)
    mean = context.Y.mean(axis=0, dtype=np.float64)
    head = context.task.head_behind(channel)
    return _served(head, np.eye(len(mean)), mean, learned.apply, client_row_norm(context))


def few_shot(count: int, method: Callable[[PairContext], Classifier]) -> Callable[[PairContext], Classifier]:
    """A method with so many unlabelled texts of the task among the public ones."""
    return lambda context: method(context.with_few_shot(count))


def synthetic(method: Callable[[PairContext], Classifier]) -> Callable[[PairContext], Classifier]:
    """A method with synthetic texts of the task among the public ones."""
    return lambda context: method(context.with_synthetic)


def _at_silo(head: CalibratedHead, learned: AffineMap) -> Classifier:
    return _served(head, learned.weight, learned.intercept)


def _served(
    calibrated: CalibratedHead,
    weight: ArrayLike,
    intercept: ArrayLike,
    prepare: Callable[[ArrayLike], Matrix] = as_it_is,
    row_norm: float = 1.0,
) -> Classifier:
    """Of all outputs of a head behind xW + b, with the scores that they give and their thresholds."""
    head = calibrated.head.composed(weight, intercept)
    scores: dict[str, Score] = {name: partial(_score, head.layout, name) for name in calibrated.ood}
    return Classifier(
        head.weight,
        head.bias,
        head.head.labels,
        prepare,
        row_norm,
        scores,
        thresholds=calibrated.ood,
        promise=None if calibrated.accuracy is None else Promise(calibrated.accuracy, calibrated.margin),
    )


def _score(layout: OutputLayout, name: str, outputs: Matrix) -> Matrix:
    return layout.scores(outputs)[name]
