"""Between messages of silo.proto and domain types."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.protocol.cards import Limits, SiloCard
from sealign.protocol.conversions.checks import bounded_count, bounded_text
from sealign.protocol.v1 import silo_pb2 as pb


def silo_to_wire(card: SiloCard) -> pb.SiloCard:
    """Return the silo card as a message."""
    return pb.SiloCard(
        name=card.name,
        version=card.version,
        identity=card.identity,
        spaces=card.spaces,
        tasks=card.tasks,
        generation_tasks=card.generation_tasks,
        limits=pb.Limits(**vars(card.limits)),
        faulty_tasks=card.faulty_tasks,
        faulty_generation_tasks=card.faulty_generation_tasks,
    )


def silo_from_wire(message: pb.SiloCard) -> SiloCard:
    """Return the silo card in a message."""
    limits = message.limits
    return SiloCard(
        name=bounded_text(message.name, "silo's name"),
        version=bounded_text(message.version, "silo's version"),
        identity=bounded_text(message.identity, "identity", 1024),
        spaces=_names(message.spaces, "spaces"),
        tasks=_names(message.tasks, "tasks"),
        generation_tasks=_names(message.generation_tasks, "generation tasks"),
        limits=Limits(
            rows_per_request=limits.rows_per_request,
            rows_per_day=limits.rows_per_day if limits.HasField("rows_per_day") else None,
            may_align=limits.may_align,
            shares_examples=limits.shares_examples,
        ),
        faulty_tasks=_names(message.faulty_tasks, "faulty tasks"),
        faulty_generation_tasks=_names(message.faulty_generation_tasks, "faulty generation tasks"),
    )


def _names(names: Sequence[str], kind: str) -> tuple[str, ...]:
    bounded_count(names, kind)
    return tuple(bounded_text(name, f"name among {kind}") for name in names)
