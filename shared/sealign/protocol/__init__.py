"""The wire contract: generated stubs, and conversions between messages and domain types."""

from sealign.protocol.cards import (
    EMBEDDINGS,
    GenerationCard,
    Limits,
    MapCard,
    PublicSetCard,
    SiloCard,
    SpaceCard,
    TaskCard,
    find_public_set,
    generation_space,
    generation_task_of,
)
from sealign.protocol.rows import (
    AlignmentOffer,
    AlignmentRequest,
    ClientMap,
    CrossCovariancePart,
    Placement,
    RowKind,
)

__all__ = [
    "EMBEDDINGS",
    "AlignmentOffer",
    "AlignmentRequest",
    "ClientMap",
    "CrossCovariancePart",
    "GenerationCard",
    "Limits",
    "MapCard",
    "Placement",
    "PublicSetCard",
    "RowKind",
    "SiloCard",
    "SpaceCard",
    "TaskCard",
    "find_public_set",
    "generation_space",
    "generation_task_of",
]
