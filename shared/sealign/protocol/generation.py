"""What a silo says about a generation task, and its conversion to and from the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sealign.ckks import PackingPlan, SecurityTable
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError
from sealign.protocol.cards import MapCard, PublicSetCard
from sealign.protocol.conversions import (
    encoder_from_wire,
    encoder_to_wire,
    map_from_wire,
    map_to_wire,
    plan_from_wire,
    plan_to_wire,
    public_set_from_wire,
    public_set_to_wire,
)
from sealign.protocol.v1 import generation_pb2 as pb

MAX_TOKENIZER_BYTES = 1 << 28
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class GenerationCard:
    """A silo's language-model head, as one client model can use it.

    Attributes:
        model: the silo's model; the dimension is that of its states.
        vocabulary: outputs of its head.
        tokenizer: fingerprint of its tokenizer, which turns tokens into text.
        tokenizer_bytes: size of the tokenizer.
        max_tokens: most new tokens of one generation.
        public_sets: over which states can be aligned; ``rows`` counts tokens.
        map: the one in use; None until the client has aligned.
        plan: None while there is no map for the client's model.
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
    public_sets: tuple[PublicSetCard, ...]
    map: MapCard | None
    plan: PackingPlan | None
    revision: str
    unservable: bool = False


def generation_to_wire(card: GenerationCard) -> pb.GenerationCard:
    """The card as a message."""
    return pb.GenerationCard(
        name=card.name,
        description=card.description,
        model=encoder_to_wire(card.model),
        vocabulary=card.vocabulary,
        tokenizer=card.tokenizer,
        tokenizer_bytes=card.tokenizer_bytes,
        max_tokens=card.max_tokens,
        public_sets=[public_set_to_wire(public) for public in card.public_sets],
        map=None if card.map is None else map_to_wire(card.map),
        plan=None if card.plan is None else plan_to_wire(card.plan),
        revision=card.revision,
        unservable=card.unservable,
    )


def generation_from_wire(message: pb.GenerationCard, table: SecurityTable) -> GenerationCard:
    """The card in a message.

    Raises:
        InvalidInputError, InsecureParametersError: values that no honest silo sends.
    """
    plan = plan_from_wire(message.plan, table) if message.HasField("plan") else None
    if (
        message.vocabulary < 2
        or message.max_tokens < 1
        or not _FINGERPRINT.fullmatch(message.tokenizer)
        or not 0 < message.tokenizer_bytes <= MAX_TOKENIZER_BYTES
        or (plan is not None and (plan.outputs != message.vocabulary or plan.rows != 1))
    ):
        raise InvalidInputError(
            f"the silo published generation task {message.name[:64]!r} with a plan or limits that do not fit its "
            "vocabulary; it runs an incompatible or faulty version"
        )
    return GenerationCard(
        name=message.name,
        description=message.description,
        model=encoder_from_wire(message.model),
        vocabulary=message.vocabulary,
        tokenizer=message.tokenizer,
        tokenizer_bytes=message.tokenizer_bytes,
        max_tokens=message.max_tokens,
        public_sets=tuple(public_set_from_wire(public) for public in message.public_sets),
        map=map_from_wire(message.map) if message.HasField("map") else None,
        plan=plan,
        revision=message.revision,
        unservable=message.unservable,
    )
