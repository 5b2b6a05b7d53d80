"""What clients encrypt, and what they ask for with it: plain values, the same on both sides of the wire."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealign.ckks import EncryptedProduct, PackingPlan
    from sealign.encoders import EncoderCard


class Placement(str, enum.Enum):
    """Where the map from the client's embedding space to the silo's is applied."""

    SILO = "silo"
    """Under encryption, composed with the head."""
    CLIENT = "client"
    """In the clear, before encryption; the silo sees neither embeddings nor map."""


@dataclass(frozen=True)
class ClientMap:
    """A map that a client learned under encryption and applies itself.

    Attributes:
        public_set: digest of the public set that it was learned over; rows are centred on the silo's mean over it.
        registration: what the silo calls what it was told about the map; None if nothing is registered.
    """

    public_set: str
    registration: str | None = None


@dataclass(frozen=True)
class RowKind:
    """What kind of rows a client encrypts.

    Attributes:
        encoder: fingerprint of the encoder that made them.
        map: id of the map that the silo applies to them, or the map that the client has applied.
        recentred: rows are centred on the mean of the client's own texts, in place of which a task's mean is to come.
    """

    encoder: str
    map: str | ClientMap
    recentred: bool = False


@dataclass(frozen=True)
class AlignmentRequest:
    """What an alignment is about.

    Attributes:
        space: name of the space that is aligned with.
        encoder: the client's.
        public_set: digest that both sides computed over the same texts.
        rows: number of rows that the client has of it.
    """

    space: str
    encoder: EncoderCard
    public_set: str
    rows: int


@dataclass(frozen=True)
class AlignmentOffer:
    """How the silo continues an encrypted alignment: its session, its plan, the first block that is missing."""

    session: bytes
    plan: PackingPlan
    next_block: int


@dataclass(frozen=True)
class CrossCovariancePart:
    """The reply to one row block, and the sum of squares of the silo's centred rows."""

    index: int
    product: EncryptedProduct
    squared_norm: float
