"""The wire contract: generated stubs, and conversions between messages and domain types."""

from sealign.protocol.cards import (
    AlignmentOffer,
    CrossCovariancePart,
    MapCard,
    Placement,
    PublicSetCard,
    QueryRows,
    SiloCard,
    TaskCard,
    find_public_set,
)
from sealign.protocol.generation import GenerationCard

__all__ = [
    "AlignmentOffer",
    "CrossCovariancePart",
    "GenerationCard",
    "MapCard",
    "Placement",
    "PublicSetCard",
    "QueryRows",
    "SiloCard",
    "TaskCard",
    "find_public_set",
]
