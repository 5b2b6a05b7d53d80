"""What a silo says about itself: plain values, the same on both sides of the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealign.errors import NotFoundError

if TYPE_CHECKING:
    from sealign.alignment import AffineMap
    from sealign.ckks import PackingPlan
    from sealign.encoders import EncoderCard
    from sealign.heads import OutputLayout

EMBEDDINGS = "embeddings"
"""The space of the silo's own encoder."""
_GENERATION = "generation/"


def generation_space(task: str) -> str:
    """Return the name of a generation task's space."""
    return _GENERATION + task


def generation_task_of(space: str) -> str | None:
    """Return the generation task that a space belongs to; None for others."""
    return space.removeprefix(_GENERATION) if space.startswith(_GENERATION) else None


@dataclass(frozen=True)
class Limits:
    """What the caller may ask a silo for.

    Attributes:
        rows_per_request: rows in one request.
        rows_per_day: per identity and task in 24 hours, over all encoders; None if there is no limit.
        may_align: whether it may align and register maps.
        shares_examples: whether it may read shared examples.
    """

    rows_per_request: int
    rows_per_day: int | None = None
    may_align: bool = True
    shares_examples: bool = False


@dataclass(frozen=True)
class SiloCard:
    """A silo, and who is calling it.

    Attributes:
        version: of its software.
        identity: the caller's, as the silo records it.
        spaces, tasks, generation_tasks: by name.
        faulty_tasks, faulty_generation_tasks: those of them that nobody can use at present.
    """

    name: str
    version: str
    identity: str
    spaces: tuple[str, ...]
    tasks: tuple[str, ...]
    generation_tasks: tuple[str, ...]
    limits: Limits
    faulty_tasks: tuple[str, ...] = ()
    faulty_generation_tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicSetCard:
    """A public text set that the silo holds.

    Attributes:
        rows: number of texts; of a generation task, number of the silo's tokens in them.
        base: digest of the public set that shared examples have joined to make this one; None for others.
        releases_left: cross-covariances that the silo would still release to the caller, for the encoder asked about;
            None where nobody asked.
    """

    digest: str
    rows: int
    name: str
    base: str | None = None
    releases_left: int | None = None


def find_public_set(cards: Sequence[PublicSetCard], digest: str, holder: str = "the silo") -> PublicSetCard:
    """Return the card of a public set among those that are held.

    Args:
        cards: of the sets that are held.
        digest: of the one that is looked for.
        holder: who holds them, for the error.

    Raises:
        NotFoundError: it is not among them.
    """
    for card in cards:
        if card.digest == digest:
            return card
    known = ", ".join(f"{card.name} ({card.digest[:12]}…, {card.rows} rows)" for card in cards) or "none"
    raise NotFoundError(
        f"{holder} does not hold the public set {digest[:12]!r}…; it holds: {known}. Both sides must use the same "
        "file, byte for byte, or as many rows of the general set from releases of Sealign that ship the same one."
    )


@dataclass(frozen=True)
class MapCard:
    """A learned map and how good it is; see `sealign.alignment.MapQuality`.

    Attributes:
        id: names the content.
        encoder: fingerprint of the client's encoder.
    """

    id: str
    encoder: str
    public_set: str
    rows: int
    penalty: float
    explained_variance: float
    mean_cosine: float | None
    linear_cka: float | None
    created: str
    divergence: float | None = None

    @classmethod
    def of(cls, learned: AffineMap) -> MapCard:
        """Return the card of a map."""
        quality = learned.quality
        return cls(
            id=learned.id,
            encoder=learned.source_fingerprint,
            public_set=learned.public_set,
            rows=quality.rows,
            penalty=quality.penalty,
            explained_variance=quality.explained_variance,
            mean_cosine=quality.mean_cosine,
            linear_cka=quality.linear_cka,
            created=learned.created,
            divergence=quality.divergence,
        )


@dataclass(frozen=True)
class SpaceCard:
    """An embedding space of the silo, which clients align with.

    Attributes:
        encoder: the silo's own; maps lead to its rows.
        maps: that the caller may use with the encoder asked about, or with any, the newest first: its own, then the
            operator's.
    """

    name: str
    encoder: EncoderCard
    public_sets: tuple[PublicSetCard, ...]
    maps: tuple[MapCard, ...] = ()


@dataclass(frozen=True)
class TaskCard:
    """A classification task of the silo.

    Attributes:
        temperature: divide logits by this before the softmax.
        held_out_accuracy: of the head on the silo's own encoder.
        ood_thresholds: by score name; texts that score below the first one's are reported as out of distribution.
        plans: none if the task is not served to the rows asked about.
        revision: names this version of head and map.
        reject, directions: how to read outputs, as in :class:`sealign.heads.OutputLayout`.
        mapped_accuracy: promised for the rows asked about, of texts distributed as the silo's own; None where the silo
            knows too little about the map.
        calibrated: whether temperature and thresholds were measured for the map asked about.
        mapped_accuracy_margin: within which the promise holds in about 95 % of cases.
        preparing: whether the head for the rows asked about is being fitted.
        kept: least and largest share of the task's texts that reach the first threshold, in about 95 % of cases; None
            where thresholds were not set for the map.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    temperature: float
    held_out_accuracy: float
    ood_thresholds: dict[str, float]
    plans: tuple[PackingPlan, ...]
    revision: str
    reject: bool = False
    directions: int = 0
    mapped_accuracy: float | None = None
    calibrated: bool = False
    mapped_accuracy_margin: float | None = None
    preparing: bool = False
    kept: tuple[float, float] | None = None

    @property
    def layout(self) -> OutputLayout:
        """How to read a row of outputs."""
        from sealign.heads import OutputLayout

        return OutputLayout(len(self.labels), self.reject, self.directions)


@dataclass(frozen=True)
class GenerationCard:
    """A silo's language-model head, as one kind of rows can use it.

    Attributes:
        model: the silo's model; the dimension is that of its states.
        vocabulary: outputs of its head.
        tokenizer: fingerprint of its tokenizer, which turns tokens into text.
        tokenizer_bytes: size of the tokenizer.
        max_tokens: maximum number of new tokens per generation.
        plan: None if the task is not served to the rows asked about.
        revision: names this version of head and map.
        unservable: there is no plan because no parameter set can hold the logits.
    """

    name: str
    description: str
    model: EncoderCard
    vocabulary: int
    tokenizer: str
    tokenizer_bytes: int
    max_tokens: int
    plan: PackingPlan | None
    revision: str
    unservable: bool = False
