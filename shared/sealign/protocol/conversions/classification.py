"""Between messages of classification.proto and domain types."""

from __future__ import annotations

from sealign.ckks import SecurityTable
from sealign.errors import InvalidInputError
from sealign.protocol.cards import TaskCard
from sealign.protocol.conversions.checks import (
    MAX_DESCRIPTION,
    MAX_LABELS,
    bounded_count,
    bounded_text,
    finite,
)
from sealign.protocol.conversions.types import plan_from_wire, plan_to_wire
from sealign.protocol.v1 import classification_pb2 as pb

_MAX_PLANS = 16


def task_to_wire(card: TaskCard) -> pb.TaskCard:
    """Return the task card as a message."""
    least, most = card.kept or (None, None)
    return pb.TaskCard(
        name=card.name,
        description=card.description,
        labels=card.labels,
        temperature=card.temperature,
        held_out_accuracy=card.held_out_accuracy,
        ood_scores=[pb.OodScore(name=name, threshold=at) for name, at in card.ood_thresholds.items()],
        plans=[plan_to_wire(plan) for plan in card.plans],
        revision=card.revision,
        reject=card.reject,
        directions=card.directions,
        mapped_accuracy=card.mapped_accuracy,
        calibrated=card.calibrated,
        mapped_accuracy_margin=card.mapped_accuracy_margin,
        preparing=card.preparing,
        kept_least=least,
        kept_most=most,
    )


def task_from_wire(message: pb.TaskCard, table: SecurityTable) -> TaskCard:
    """Return the task card in a message."""
    name = bounded_text(message.name, "task's name")
    if len(message.labels) < 2 or not message.temperature > 0:
        raise InvalidInputError(f"the silo published task {name!r} without labels or temperature")
    bounded_count(message.labels, "labels", MAX_LABELS)
    bounded_count(message.plans, "plans", _MAX_PLANS)
    bounded_count(message.ood_scores, "out-of-distribution scores", _MAX_PLANS)
    card = TaskCard(
        name=name,
        description=bounded_text(message.description, "task's description", MAX_DESCRIPTION),
        labels=tuple(bounded_text(label, "label") for label in message.labels),
        temperature=finite(message.temperature, "temperature"),
        held_out_accuracy=finite(message.held_out_accuracy, "held-out accuracy"),
        ood_thresholds={
            bounded_text(score.name, "score's name"): finite(score.threshold, "threshold")
            for score in message.ood_scores
        },
        plans=tuple(plan_from_wire(plan, table) for plan in message.plans),
        revision=bounded_text(message.revision, "revision"),
        reject=message.reject,
        directions=message.directions,
        mapped_accuracy=message.mapped_accuracy if message.HasField("mapped_accuracy") else None,
        calibrated=message.calibrated,
        mapped_accuracy_margin=(message.mapped_accuracy_margin if message.HasField("mapped_accuracy_margin") else None),
        preparing=message.preparing,
        kept=(finite(message.kept_least, "share of texts kept"), finite(message.kept_most, "share of texts kept"))
        if message.HasField("kept_least")
        else None,
    )
    if any(plan.outputs != card.layout.outputs for plan in card.plans):
        raise InvalidInputError(f"the silo published task {name!r} with plans for other than its outputs")
    return card
