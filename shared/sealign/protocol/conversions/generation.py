"""Between messages of generation.proto and domain types."""

from __future__ import annotations

from sealign.ckks import SecurityTable
from sealign.errors import InvalidInputError
from sealign.protocol.cards import GenerationCard
from sealign.protocol.conversions.checks import DIGEST, MAX_DESCRIPTION, bounded_text
from sealign.protocol.conversions.types import encoder_from_wire, encoder_to_wire, plan_from_wire, plan_to_wire
from sealign.protocol.v1 import generation_pb2 as pb

MAX_TOKENIZER_BYTES = 1 << 26


def generation_to_wire(card: GenerationCard) -> pb.GenerationCard:
    """Return the card as a message."""
    return pb.GenerationCard(
        name=card.name,
        description=card.description,
        model=encoder_to_wire(card.model),
        vocabulary=card.vocabulary,
        tokenizer=card.tokenizer,
        tokenizer_bytes=card.tokenizer_bytes,
        max_tokens=card.max_tokens,
        plan=None if card.plan is None else plan_to_wire(card.plan),
        revision=card.revision,
        unservable=card.unservable,
    )


def generation_from_wire(message: pb.GenerationCard, table: SecurityTable) -> GenerationCard:
    """Return the card in a message.

    Raises:
        InvalidInputError, InsecureParametersError: values that no honest silo sends.
    """
    name = bounded_text(message.name, "generation task's name")
    plan = plan_from_wire(message.plan, table) if message.HasField("plan") else None
    if (
        message.vocabulary < 2
        or message.max_tokens < 1
        or not DIGEST.fullmatch(message.tokenizer)
        or not 0 < message.tokenizer_bytes <= MAX_TOKENIZER_BYTES
        or (plan is not None and (plan.outputs != message.vocabulary or plan.rows != 1))
    ):
        raise InvalidInputError(
            f"the silo published generation task {name!r} with a plan or limits that do not fit its vocabulary; it "
            "runs an incompatible or faulty version"
        )
    return GenerationCard(
        name=name,
        description=bounded_text(message.description, "task's description", MAX_DESCRIPTION),
        model=encoder_from_wire(message.model),
        vocabulary=message.vocabulary,
        tokenizer=message.tokenizer,
        tokenizer_bytes=message.tokenizer_bytes,
        max_tokens=message.max_tokens,
        plan=plan,
        revision=bounded_text(message.revision, "revision"),
        unservable=message.unservable,
    )
