"""What a silo says about itself: plain values, the same on both sides of the wire."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sealign.alignment import AffineMap
from sealign.ckks import EncryptedProduct, PackingPlan
from sealign.errors import NotFoundError
from sealign.heads import OutputLayout


class Placement(str, enum.Enum):
    """Where the map from the client's embedding space to the silo's is applied."""

    SILO = "silo"
    """Under encryption, composed with the head."""
    CLIENT = "client"
    """In the clear, before encryption; the silo sees neither embeddings nor map."""


@dataclass(frozen=True)
class QueryRows:
    """What kind of rows a client encrypts.

    Attributes:
        encoder: fingerprint of the encoder that made the embeddings.
        mapped_over: empty for embeddings as they are, which the silo maps. Else the client has mapped them: the digest
            of the public set that its map was learned over, and rows are centred on the silo's mean over that set.
        map_id: names what the client has told the silo about its map (`RegisterMap`); empty if nothing.
        recentred: rows are centred on the mean of the client's own texts, in place of which a task's mean is to come.
    """

    encoder: str
    mapped_over: str = ""
    map_id: str = ""
    recentred: bool = False


@dataclass(frozen=True)
class AlignmentOffer:
    """How the silo will go on with an encrypted alignment: its name, its plan, the first block that is missing."""

    session: bytes
    plan: PackingPlan
    next_block: int


@dataclass(frozen=True)
class CrossCovariancePart:
    """The reply to one row block, and the sum of squares of the silo's centred embeddings."""

    index: int
    product: EncryptedProduct
    squared_norm: float


@dataclass(frozen=True)
class PublicSetCard:
    """A public text set that the silo holds.

    Attributes:
        base: digest of the public set that released texts have joined to make this one; empty for others.
        releases_left: cross-covariances that the silo would still release to the caller, for the encoder asked about;
            None where nobody asked.
    """

    digest: str
    rows: int
    name: str
    base: str = ""
    releases_left: int | None = None


def find_public_set(cards: Sequence[PublicSetCard], digest: str, holder: str = "the silo") -> PublicSetCard:
    """The card of a public set among those that are held.

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
        "file, byte for byte."
    )


@dataclass(frozen=True)
class MapCard:
    """A learned map and how good it is; see `sealign.alignment.MapQuality`."""

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
        """The card of a map."""
        quality = learned.quality
        return cls(
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
class TaskCard:
    """A classification task of the silo.

    Attributes:
        temperature: divide logits by this before the softmax; measured for the map of the encoder asked about.
        held_out_accuracy: of the head on the silo's own encoder.
        ood_thresholds: by score name, measured likewise; texts that score below the first one's are reported as out of
            distribution.
        plans: empty while there is no map for the encoder asked about.
        revision: names this version of head and map.
        reject, directions: how to read outputs, as in :class:`sealign.heads.OutputLayout`.
        mapped_accuracy: of the head served to the encoder asked about, on held-out texts of the silo, as predicted for
            its map; None where the silo knows too little about the map.
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

    @property
    def layout(self) -> OutputLayout:
        """How to read a row of outputs."""
        return OutputLayout(len(self.labels), self.reject, self.directions)


@dataclass(frozen=True)
class SiloCard:
    """What a silo offers to one encoder.

    Attributes:
        map: the one in use, at the silo or at the client; None until the client has aligned.
        encoder: fingerprint of the silo's own encoder.
        dimension: of its embeddings.
    """

    name: str
    tasks: tuple[TaskCard, ...]
    public_sets: tuple[PublicSetCard, ...]
    map: MapCard | None
    encoder: str
    dimension: int
