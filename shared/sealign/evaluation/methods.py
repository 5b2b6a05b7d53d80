"""The methods that an evaluation compares: each makes a classifier of the client's embeddings.

A new method is a function of a `PairContext` and one line in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

import numpy as np

from sealign.alignment import ScaledRows, fit_cross_covariance, require_enough_texts
from sealign.evaluation.classifier import Classifier
from sealign.evaluation.context import PairContext
from sealign.heads import train_head

PLAIN = "ridge"
"""What other methods are to improve on."""

NATIVE = "native"
"""The silo's own accuracy, with its own encoder."""

_PRODUCT_ERROR = 2.0**-15 / 7
"""Standard deviation of an entry's error after encrypted alignment, in units of the silo's mean dimension norm."""


@dataclass(frozen=True)
class Method:
    """One way of making a classifier.

    Attributes:
        name: in tables and specs.
        description: one sentence for the report.
        fit: makes the classifier. Raises InvalidInputError where the method cannot be applied; the report says so.
        kind: ``reference`` for what no client of the protocol has.
        side: whose embeddings of the test texts it classifies.
    """

    name: str
    description: str
    fit: Callable[[PairContext], Classifier]
    kind: Literal["reference", "private"] = "private"
    side: Literal["client", "silo"] = "client"


def native(context: PairContext) -> Classifier:
    """The silo's head on the silo's own embeddings."""
    return Classifier.of(context.silo_head.head)


def client_own(context: PairContext) -> Classifier:
    """A head on the client's embeddings, which takes the silo's labels."""
    return Classifier.of(train_head(context.train.client, context.train_labels, seed=context.seed).head)


def ridge(context: PairContext) -> Classifier:
    """The silo's head behind the plain map."""
    learned = context.ridge
    return Classifier.of(context.silo_head.head.composed(learned.weight, learned.intercept))


def ridge_at_client(context: PairContext) -> Classifier:
    """The map of encrypted alignment, applied by the client; the silo adds its mean to the head's bias.

    The cross-covariance is computed in the clear, and its error drawn as the encrypted product promises it.
    """
    source, target = ScaledRows.of(context.X), context.Y.astype(np.float64)
    require_enough_texts(len(target), context.X.shape[1], target.shape[1])
    mean = target.mean(axis=0)
    target -= mean
    squared_norm = float(np.sum(target**2))
    error = _PRODUCT_ERROR * float(np.sqrt(squared_norm / target.shape[1]))
    product = source.rows @ target
    product += np.random.default_rng(context.seed).normal(0.0, error, product.shape)
    learned = fit_cross_covariance(
        source,
        product,
        squared_norm,
        error,
        source_fingerprint="client",
        target_fingerprint="silo",
        public_set="public",
    )
    # As the silo serves it: rows are centred, so at most twice as long as the longest embedding.
    longest = float(np.linalg.norm(context.Y.astype(np.float64), axis=1).max())
    row_norm = 2.0 ** (1 + ceil(log2(longest) - 1e-3))
    head = context.silo_head.head.composed(np.eye(target.shape[1]), mean)
    return Classifier.of(head, learned.apply, row_norm)


def few_shot(count: int) -> Callable[[PairContext], Classifier]:
    """The plain map over the public texts and so many unlabelled texts of the task."""
    return lambda context: ridge(context.with_public(context.public.joined(context.few.first(count))))


def registry(few_shot_counts: Sequence[int] = ()) -> dict[str, Method]:
    """All methods by name, in the order of tables."""
    methods = [
        Method(NATIVE, "the silo's own encoder and head", native, kind="reference", side="silo"),
        Method(
            "client-own", "a head trained on the client's embeddings with the silo's labels", client_own, "reference"
        ),
        Method(PLAIN, "ridge map over public texts, at the silo", ridge),
        Method("ridge-client", "ridge map learned under encryption, at the client", ridge_at_client),
    ]
    methods += [
        Method(
            f"few-shot-{count}",
            f"ridge map, {count} unlabelled texts of the task join the public ones",
            few_shot(count),
        )
        for count in few_shot_counts
    ]
    return {method.name: method for method in methods}
