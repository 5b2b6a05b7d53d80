"""What a silo says about itself: plain values, the same on both sides of the wire."""

from __future__ import annotations

from dataclasses import dataclass

from sealign.ckks import PackingPlan


@dataclass(frozen=True)
class PublicSetCard:
    """A public text set that the silo holds."""

    digest: str
    rows: int
    name: str


@dataclass(frozen=True)
class MapCard:
    """A learned map and how good it is on rows held out from its fit."""

    encoder: str
    public_set: str
    rows: int
    penalty: float
    explained_variance: float
    mean_cosine: float
    linear_cka: float
    created: str


@dataclass(frozen=True)
class TaskCard:
    """A classification task of the silo.

    Attributes:
        temperature: divide logits by this before the softmax.
        held_out_accuracy: of the head on the silo's own encoder.
        ood_thresholds: by score name; texts that score below are reported as out of distribution.
        plans: empty while there is no map for the encoder asked about.
        revision: names this version of head and map.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    temperature: float
    held_out_accuracy: float
    ood_thresholds: dict[str, float]
    plans: tuple[PackingPlan, ...]
    revision: str


@dataclass(frozen=True)
class SiloCard:
    """What a silo offers to one encoder; ``map`` is None until the client has aligned it."""

    name: str
    tasks: tuple[TaskCard, ...]
    public_sets: tuple[PublicSetCard, ...]
    map: MapCard | None
