"""Between messages of silo.proto and domain types."""

from __future__ import annotations

from collections.abc import Sequence

from sealign.protocol.cards import Limits, SiloCard
from sealign.protocol.conversions.checks import bounded_count, bounded_text
from sealign.protocol.signing import MAX_KEY_CHANGES, KeyChange
from sealign.protocol.v1 import silo_pb2 as pb


def silo_to_wire(card: SiloCard, changes: Sequence[KeyChange] = ()) -> pb.SiloCard:
    """Return the silo card as a message, with how its signing key came after those before it."""
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
        key_changes=[pb.KeyChange(**vars(change)) for change in changes],
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


def key_changes_from_wire(message: pb.SiloCard) -> tuple[KeyChange, ...]:
    """Return how the silo's signing key came after those before it; each change is still to be verified."""
    bounded_count(message.key_changes, "changes of the signing key", MAX_KEY_CHANGES)
    return tuple(KeyChange(change.before, change.after, change.signature) for change in message.key_changes)


def _names(names: Sequence[str], kind: str) -> tuple[str, ...]:
    bounded_count(names, kind)
    return tuple(bounded_text(name, f"name among {kind}") for name in names)
