"""Between wire messages and domain types. Everything that comes in is checked here, once.

Every `*_from_wire` raises `InvalidInputError` (or `InsecureParametersError`) for values that no honest
peer sends.
"""

from __future__ import annotations

import re
from math import isfinite, isqrt

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MapCovariances
from sealign.ckks import (
    Block,
    EncryptedMatrix,
    EncryptedProduct,
    PackingPlan,
    PublicKey,
    ReplyCiphertext,
    SecurityTable,
    SeededCiphertext,
    parameter_set,
    verify_digest,
)
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError
from sealign.protocol.cards import (
    AlignmentOffer,
    CrossCovariancePart,
    MapCard,
    PublicSetCard,
    QueryRows,
    SiloCard,
    TaskCard,
)
from sealign.protocol.v1 import silo_pb2 as pb

_MAP_ID = re.compile(r"[0-9a-f]{32}")


def plan_to_wire(plan: PackingPlan) -> pb.Plan:
    """The plan as a message."""
    return pb.Plan(
        id=plan.id,
        parameter_set=plan.parameters.name,
        rows=plan.rows,
        dimension=plan.dimension,
        outputs=plan.outputs,
        block_rows=plan.block.rows,
        block_inner=plan.block.inner,
        block_outputs=plan.block.outputs,
        input_scale_bits=plan.input_scale_bits,
        weight_scale_bits=plan.weight_scale_bits,
        reply_bits=plan.reply_bits,
        range=plan.range,
        precision=plan.precision,
        row_norm=plan.row_norm,
    )


def plan_from_wire(message: pb.Plan, table: SecurityTable) -> PackingPlan:
    """The plan in a message, held against this side's own security table."""
    plan = PackingPlan(
        parameters=parameter_set(message.parameter_set, table),
        rows=message.rows,
        dimension=message.dimension,
        outputs=message.outputs,
        block=Block(message.block_rows, message.block_inner, message.block_outputs),
        input_scale_bits=message.input_scale_bits,
        weight_scale_bits=message.weight_scale_bits,
        reply_bits=message.reply_bits,
        range=message.range,
        precision=message.precision,
        row_norm=message.row_norm,
    )
    if plan.id != message.id:
        raise InvalidInputError(
            f"the silo published a plan (id {message.id[:16]!r}) under another plan's name; it runs an incompatible or "
            "faulty version. Nothing was encrypted."
        )
    return plan


def public_key_to_wire(key: PublicKey) -> pb.PublicKey:
    """The public key as a message."""
    return pb.PublicKey(parameter_set=key.parameters.name, seed=key.seeded.seed, words=key.seeded.words)


def public_key_from_wire(message: pb.PublicKey, table: SecurityTable) -> PublicKey:
    """The public key in a message; its words are checked when it is first used."""
    return PublicKey(parameter_set(message.parameter_set, table), SeededCiphertext(message.seed, message.words))


def matrix_to_wire(matrix: EncryptedMatrix) -> pb.EncryptedMatrix:
    """The encrypted matrix as a message."""
    return pb.EncryptedMatrix(
        plan=matrix.plan,
        key_id=matrix.key_id,
        ciphertexts=[pb.SeededCiphertext(seed=c.seed, words=c.words) for c in matrix.ciphertexts],
        digest=matrix.digest(),
    )


def matrix_from_wire(message: pb.EncryptedMatrix) -> EncryptedMatrix:
    """The encrypted matrix in a message, its digest verified."""
    ciphertexts = tuple(SeededCiphertext(c.seed, c.words) for c in message.ciphertexts)
    matrix = EncryptedMatrix(message.plan, message.key_id, ciphertexts)
    verify_digest(matrix, message.digest)
    return matrix


def product_to_wire(product: EncryptedProduct) -> pb.EncryptedProduct:
    """The encrypted product as a message."""
    return pb.EncryptedProduct(
        plan=product.plan,
        key_id=product.key_id,
        ciphertexts=[pb.ReplyCiphertext(outputs=c.outputs, mask=c.mask) for c in product.ciphertexts],
        digest=product.digest(),
    )


def product_from_wire(message: pb.EncryptedProduct) -> EncryptedProduct:
    """The encrypted product in a message, its digest verified."""
    ciphertexts = tuple(ReplyCiphertext(c.outputs, c.mask) for c in message.ciphertexts)
    product = EncryptedProduct(message.plan, message.key_id, ciphertexts)
    verify_digest(product, message.digest)
    return product


def encoder_to_wire(card: EncoderCard) -> pb.EncoderCard:
    """The encoder card as a message."""
    return pb.EncoderCard(**card.model_dump(include=set(EncoderCard.model_fields)))  # a causal model's has more


def encoder_from_wire(message: pb.EncoderCard) -> EncoderCard:
    """The encoder card in a message."""
    try:
        return EncoderCard(
            name=message.name,
            dimension=message.dimension,
            fingerprint=message.fingerprint,
            normalised=message.normalised,
        )
    except ValueError as error:
        raise InvalidInputError(
            "the encoder card is incomplete: it needs a name, a positive dimension and a SHA-256 fingerprint"
        ) from error


def query_rows_from_wire(message: pb.DescribeRequest | pb.ClassifyRequest) -> QueryRows:
    """The kind of rows that a request is about."""
    if message.map_id and not _MAP_ID.fullmatch(message.map_id):
        raise InvalidInputError("a map_id is what RegisterMap answered: 32 hexadecimal digits")
    return QueryRows(message.encoder, message.mapped_over, message.map_id, message.recentred)


def covariances_to_wire(covariances: MapCovariances, public_set: str) -> pb.RegisterMapRequest:
    """What a client tells about its map, as a message."""
    upper = np.triu_indices(covariances.dimension)
    return pb.RegisterMapRequest(
        mapped_over=public_set,
        cross=covariances.cross[upper].astype("<f4").tobytes(),
        mapped=covariances.mapped[upper].astype("<f4").tobytes(),
    )


def covariances_from_wire(message: pb.RegisterMapRequest) -> MapCovariances:
    """What a client tells about its map."""
    return MapCovariances(_symmetric(message.cross), _symmetric(message.mapped))


def _symmetric(values: bytes) -> NDArray[np.float32]:
    """A symmetric matrix from its upper triangle."""
    count = len(values) // 4
    dimension = (isqrt(8 * count + 1) - 1) // 2
    if len(values) % 4 or not count or dimension * (dimension + 1) // 2 != count:
        raise InvalidInputError(f"{len(values)} bytes are not the upper triangle of a float32 matrix")
    matrix = np.zeros((dimension, dimension), dtype=np.float32)
    matrix[np.triu_indices(dimension)] = np.frombuffer(values, dtype="<f4")
    return np.asarray(matrix + np.triu(matrix, 1).T)


def map_to_wire(card: MapCard) -> pb.MapCard:
    """The map card as a message."""
    return pb.MapCard(**vars(card))


def map_from_wire(message: pb.MapCard) -> MapCard:
    """The map card in a message."""
    return MapCard(
        encoder=message.encoder,
        public_set=message.public_set,
        rows=message.rows,
        penalty=message.penalty,
        explained_variance=message.explained_variance,
        mean_cosine=message.mean_cosine,
        linear_cka=message.linear_cka,
        created=message.created,
        divergence=message.divergence if message.HasField("divergence") else None,
    )


def task_to_wire(card: TaskCard) -> pb.TaskCard:
    """The task card as a message."""
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
    )


def task_from_wire(message: pb.TaskCard, table: SecurityTable) -> TaskCard:
    """The task card in a message."""
    if len(message.labels) < 2 or not message.temperature > 0:
        raise InvalidInputError(f"the silo published task {message.name!r} without labels or temperature")
    card = TaskCard(
        name=message.name,
        description=message.description,
        labels=tuple(message.labels),
        temperature=message.temperature,
        held_out_accuracy=message.held_out_accuracy,
        ood_thresholds={score.name: score.threshold for score in message.ood_scores},
        plans=tuple(plan_from_wire(plan, table) for plan in message.plans),
        revision=message.revision,
        reject=message.reject,
        directions=message.directions,
        mapped_accuracy=message.mapped_accuracy if message.HasField("mapped_accuracy") else None,
    )
    if any(plan.outputs != card.layout.outputs for plan in card.plans):
        raise InvalidInputError(f"the silo published task {message.name!r} with plans for other than its outputs")
    return card


def silo_to_wire(card: SiloCard) -> pb.SiloCard:
    """The silo card as a message."""
    return pb.SiloCard(
        name=card.name,
        tasks=[task_to_wire(task) for task in card.tasks],
        public_sets=[public_set_to_wire(public) for public in card.public_sets],
        map=None if card.map is None else map_to_wire(card.map),
        encoder=card.encoder,
        dimension=card.dimension,
    )


def silo_from_wire(message: pb.SiloCard, table: SecurityTable) -> SiloCard:
    """The silo card in a message."""
    return SiloCard(
        name=message.name,
        tasks=tuple(task_from_wire(task, table) for task in message.tasks),
        public_sets=tuple(public_set_from_wire(public) for public in message.public_sets),
        map=map_from_wire(message.map) if message.HasField("map") else None,
        encoder=message.encoder,
        dimension=message.dimension,
    )


def public_set_to_wire(card: PublicSetCard) -> pb.PublicSet:
    """The public set's card as a message."""
    return pb.PublicSet(**vars(card))


def public_set_from_wire(message: pb.PublicSet) -> PublicSetCard:
    """The public set's card in a message."""
    left = message.releases_left if message.HasField("releases_left") else None
    return PublicSetCard(message.digest, message.rows, message.name, message.base, left)


def part_to_wire(part: CrossCovariancePart) -> pb.CrossCovariancePart:
    """The part of a cross-covariance as a message."""
    return pb.CrossCovariancePart(
        index=part.index, product=product_to_wire(part.product), squared_norm=part.squared_norm
    )


def alignment_reply_from_wire(
    message: pb.EncryptedAlignReply, table: SecurityTable
) -> AlignmentOffer | CrossCovariancePart | int:
    """What the silo says in an encrypted alignment; a number is that of the first inner block not yet summed."""
    kind = message.WhichOneof("part")
    if kind == "offer":
        plan = plan_from_wire(message.offer.plan, table)
        if message.offer.next_block > plan.counts[1]:
            raise InvalidInputError("the silo asks for an inner block that its plan does not have")
        return AlignmentOffer(message.offer.session, plan, message.offer.next_block)
    if kind == "product":
        part = message.product
        if not (isfinite(part.squared_norm) and part.squared_norm > 0):
            raise InvalidInputError("the silo says that its embeddings have no spread, or an infinite one")
        return CrossCovariancePart(part.index, product_from_wire(part.product), part.squared_norm)
    return message.taken.next_block
