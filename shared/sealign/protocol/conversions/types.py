"""Between messages of types.proto and domain types."""

from __future__ import annotations

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
from sealign.protocol.cards import MapCard, PublicSetCard
from sealign.protocol.conversions.checks import bounded_text, content_id, digest, finite
from sealign.protocol.rows import ClientMap, RowKind
from sealign.protocol.v1 import types_pb2 as pb

MAX_DIMENSION = 8192


def plan_to_wire(plan: PackingPlan) -> pb.Plan:
    """Return the plan as a message."""
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
    """Return the plan in a message, held against this side's own security table."""
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
            f"the silo published a plan (id {message.id[:32]!r}) under another plan's name; it runs an incompatible or "
            "faulty version. Nothing was encrypted."
        )
    return plan


def public_key_to_wire(key: PublicKey) -> pb.PublicKey:
    """Return the public key as a message."""
    return pb.PublicKey(parameter_set=key.parameters.name, seed=key.seeded.seed, words=key.seeded.words)


def public_key_from_wire(message: pb.PublicKey, table: SecurityTable) -> PublicKey:
    """Return the public key in a message; its words are checked when it is first used."""
    return PublicKey(parameter_set(message.parameter_set, table), SeededCiphertext(message.seed, message.words))


def matrix_to_wire(matrix: EncryptedMatrix) -> pb.EncryptedMatrix:
    """Return the encrypted matrix as a message."""
    return pb.EncryptedMatrix(
        plan=matrix.plan,
        key_id=matrix.key_id,
        ciphertexts=[pb.SeededCiphertext(seed=c.seed, words=c.words) for c in matrix.ciphertexts],
        digest=matrix.digest(),
    )


def matrix_from_wire(message: pb.EncryptedMatrix, most: int) -> EncryptedMatrix:
    """Return the encrypted matrix in a message, its digest verified.

    Args:
        message: as it came.
        most: number of ciphertexts that the plan allows; more are refused before anything is made of them.
    """
    _require_count(len(message.ciphertexts), most)
    ciphertexts = tuple(SeededCiphertext(c.seed, c.words) for c in message.ciphertexts)
    matrix = EncryptedMatrix(message.plan, message.key_id, ciphertexts)
    verify_digest(matrix, message.digest)
    return matrix


def product_to_wire(product: EncryptedProduct) -> pb.EncryptedProduct:
    """Return the encrypted product as a message."""
    return pb.EncryptedProduct(
        plan=product.plan,
        key_id=product.key_id,
        ciphertexts=[pb.ReplyCiphertext(outputs=c.outputs, mask=c.mask) for c in product.ciphertexts],
        digest=product.digest(),
    )


def product_from_wire(message: pb.EncryptedProduct, most: int) -> EncryptedProduct:
    """Return the encrypted product in a message, its digest verified; ``most`` as in :func:`matrix_from_wire`."""
    _require_count(len(message.ciphertexts), most)
    ciphertexts = tuple(ReplyCiphertext(c.outputs, c.mask) for c in message.ciphertexts)
    product = EncryptedProduct(message.plan, message.key_id, ciphertexts)
    verify_digest(product, message.digest)
    return product


def _require_count(count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidInputError(f"a message holds {count} ciphertexts, and its plan allows 1 to {most}")


def encoder_to_wire(card: EncoderCard) -> pb.EncoderCard:
    """Return the encoder card as a message."""
    return pb.EncoderCard(
        name=card.name, dimension=card.dimension, fingerprint=card.fingerprint, normalised=card.normalised
    )


def encoder_from_wire(message: pb.EncoderCard) -> EncoderCard:
    """Return the encoder card in a message."""
    bounded_text(message.name, "encoder's name")
    if message.dimension > MAX_DIMENSION:
        raise InvalidInputError(f"an encoder has 1 to {MAX_DIMENSION} dimensions, not {message.dimension}")
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


def rows_to_wire(rows: RowKind) -> pb.RowKind:
    """Return the kind of rows as a message."""
    if isinstance(rows.map, ClientMap):
        own = pb.ClientMap(public_set=rows.map.public_set, registration=rows.map.registration)
        return pb.RowKind(encoder=rows.encoder, client_map=own, recentred=rows.recentred)
    return pb.RowKind(encoder=rows.encoder, map_id=rows.map, recentred=rows.recentred)


def rows_from_wire(message: pb.RowKind) -> RowKind:
    """Return the kind of rows in a message."""
    encoder = digest(message.encoder, "encoder's fingerprint")
    where = message.WhichOneof("map")
    if where == "map_id":
        return RowKind(encoder, content_id(message.map_id, "map_id"), message.recentred)
    if where is None:
        raise InvalidInputError("a kind of rows names a map: map_id, or client_map for rows that the client has mapped")
    own = message.client_map
    registration = content_id(own.registration, "registration") if own.HasField("registration") else None
    return RowKind(encoder, ClientMap(digest(own.public_set, "public set"), registration), message.recentred)


def public_set_to_wire(card: PublicSetCard) -> pb.PublicSet:
    """Return the public set's card as a message."""
    return pb.PublicSet(
        digest=card.digest, rows=card.rows, name=card.name, base=card.base, releases_left=card.releases_left
    )


def public_set_from_wire(message: pb.PublicSet) -> PublicSetCard:
    """Return the public set's card in a message."""
    return PublicSetCard(
        digest=digest(message.digest, "public set"),
        rows=message.rows,
        name=bounded_text(message.name, "public set's name"),
        base=digest(message.base, "public set's base") if message.HasField("base") else None,
        releases_left=message.releases_left if message.HasField("releases_left") else None,
    )


def map_to_wire(card: MapCard) -> pb.MapCard:
    """Return the map card as a message."""
    return pb.MapCard(**vars(card))


def map_from_wire(message: pb.MapCard) -> MapCard:
    """Return the map card in a message."""
    return MapCard(
        id=content_id(message.id, "map's id"),
        encoder=digest(message.encoder, "encoder's fingerprint"),
        public_set=digest(message.public_set, "public set"),
        rows=message.rows,
        penalty=finite(message.penalty, "penalty"),
        explained_variance=finite(message.explained_variance, "explained variance"),
        created=bounded_text(message.created, "map's time"),
        mean_cosine=finite(message.mean_cosine, "mean cosine") if message.HasField("mean_cosine") else None,
        linear_cka=finite(message.linear_cka, "linear CKA") if message.HasField("linear_cka") else None,
        divergence=finite(message.divergence, "divergence") if message.HasField("divergence") else None,
    )
