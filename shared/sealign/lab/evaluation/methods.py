"""The methods that an evaluation compares: each makes a classifier of the client's embeddings.

A new method is a function of a `PairContext` and one line in `registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sealign.alignment import FAMILIES
from sealign.lab.evaluation import fitted_head, own_head
from sealign.lab.evaluation.classifier import Classifier
from sealign.lab.evaluation.context import PairContext

PLAIN = "ridge"
"""What other methods are to improve on."""

NATIVE = "native"
"""The silo's own accuracy, with its own encoder."""

CLIENT_OWN = "client-own"
"""What the client's encoder gives a head of its own, were the silo's labels known."""

CEILING = "ceiling"
"""What an affine map can give, were the task's texts known to both sides."""


FITTED = "discriminant"
"""A head fitted to the map over public texts alone."""

DEFAULT = "names"
"""What a silo serves if neither side asks for more."""

_WITH_FEW_SHOT = (FITTED, "discriminant-client", DEFAULT, "adapt")


@dataclass(frozen=True)
class Method:
    """One way of making a classifier.

    Attributes:
        name: in tables and specs.
        description: one sentence for the report.
        fit: makes the classifier. Raises InvalidInputError where the method cannot be applied; the report says so.
        kind: ``reference`` for what no client of the protocol has, ``shared`` for what takes texts of the task that the
            silo would have to share.
        side: whose embeddings of the test texts it classifies.
    """

    name: str
    description: str
    fit: Callable[[PairContext], Classifier]
    kind: Literal["reference", "private", "shared"] = "private"
    side: Literal["client", "silo"] = "client"


def registry(few_shot_counts: Sequence[int] = (), synthetic: int | None = None) -> dict[str, Method]:
    """All methods by name, in the order of tables; of so many synthetic texts, if there are any."""
    own, fitted = own_head, fitted_head
    methods = [
        Method(NATIVE, "the silo's own encoder and head", own.native, kind="reference", side="silo"),
        Method(CLIENT_OWN, "a head trained on the client's embeddings with the silo's labels", own.client_own,
               kind="reference"),
        Method(CEILING, "discriminant behind the ridge map over the task's training texts, which no client may see",
               fitted.ceiling, kind="reference"),
        Method(PLAIN, "ridge map over public texts, at the silo", own.ridge),
        Method("ridge-client", "ridge map learned under encryption, at the client", own.ridge_at_client),
        *(Method(f"few-shot-{count}", f"ridge map, {count} unlabelled texts of the task join the public ones, weighed",
                 own.few_shot(count), kind="shared") for count in few_shot_counts),
        Method("procrustes", "orthogonal Procrustes map with a scale", own.family("procrustes")),
        Method("reduced-rank", "reduced-rank ridge map", own.family("reduced-rank")),
        Method("cca-ridge", "CCA-whitened ridge map", own.family("cca")),
        Method("chosen-family", "the map, of all families, that finds held-out public texts again most easily",
               own.family(*FAMILIES)),
        Method("weighted", "ridge map over public texts weighted by similarity to the task's description",
               own.weighted),
        Method("strong-penalty", "ridge map, a head of the penalty that is best on mapped counterparts",
               own.strong_penalty),
        Method("recentred", "ridge map, the client centres its queries on their mean", own.recentred),
        Method("whitened", "ridge map, the client also whitens its queries", own.whitened),
        Method("round-trip", "ridge map, a head trained by logistic regression on what it leaves of the silo's rows",
               fitted.round_trip),
        Method(FITTED, "ridge map, a discriminant head fitted through its channel", fitted.discriminant),
        Method("discriminant-client", "the same for a map at the client, which tells the silo its covariances",
               fitted.discriminant_at_client),
        Method("discriminant+chosen-family", "discriminant, behind the map of the best family",
               fitted.discriminant_chosen_map),
        Method(DEFAULT, "discriminant behind a map over public texts and the names of the labels, weighed",
               fitted.names),
        Method("adapt", "the same, the client centres its queries on the mean of up to 300 of them", fitted.adapt),
    ]  # fmt: skip
    methods += _with_few_shot(methods, few_shot_counts)
    if synthetic is not None:
        described = f"{DEFAULT}, with {synthetic} texts made under differential privacy in place of the task's"
        made = fitted.synthetic(fitted.names)
        methods.append(Method(f"synthetic-{synthetic}+{DEFAULT}", described, made, kind="shared"))
    return {method.name: method for method in methods}


def _with_few_shot(methods: Sequence[Method], counts: Sequence[int]) -> list[Method]:
    """Return methods with the largest count of released texts only: each takes a map and a head of its own."""
    return [
        Method(f"few-shot-{count}+{method.name}", f"{method.name}, with {count} unlabelled texts of the task",
               fitted_head.few_shot(count, method.fit), kind="shared")
        for count in sorted(counts)[-1:]
        for method in methods
        if method.name in _WITH_FEW_SHOT
    ]  # fmt: skip
