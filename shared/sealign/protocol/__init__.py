"""The wire contract: generated stubs, and conversions between messages and domain types."""

from sealign.protocol.cards import MapCard, Placement, PublicSetCard, SiloCard, TaskCard

__all__ = ["MapCard", "Placement", "PublicSetCard", "SiloCard", "TaskCard"]
