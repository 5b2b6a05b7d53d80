"""Between messages of alignment.proto and domain types."""

from __future__ import annotations

from math import isfinite, isqrt

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import MapCovariances
from sealign.ckks import PackingPlan, SecurityTable
from sealign.defaults import MAX_EXAMPLES
from sealign.errors import InvalidInputError
from sealign.protocol.cards import SpaceCard
from sealign.protocol.conversions.checks import MAX_TEXT, bounded_count, bounded_text, digest
from sealign.protocol.conversions.types import (
    MAX_DIMENSION,
    encoder_from_wire,
    encoder_to_wire,
    map_from_wire,
    map_to_wire,
    plan_from_wire,
    plan_to_wire,
    product_from_wire,
    product_to_wire,
    public_set_from_wire,
    public_set_to_wire,
)
from sealign.protocol.rows import AlignmentOffer, AlignmentRequest, CrossCovariancePart
from sealign.protocol.v1 import alignment_pb2 as pb

MAX_CHECK_ROWS = 64


def space_to_wire(card: SpaceCard) -> pb.SpaceCard:
    """Return the space card as a message."""
    return pb.SpaceCard(
        name=card.name,
        encoder=encoder_to_wire(card.encoder),
        public_sets=map(public_set_to_wire, card.public_sets),
        maps=map(map_to_wire, card.maps),
    )


def space_from_wire(message: pb.SpaceCard) -> SpaceCard:
    """Return the space card in a message."""
    bounded_count(message.public_sets, "public sets")
    bounded_count(message.maps, "maps")
    return SpaceCard(
        name=bounded_text(message.name, "space's name"),
        encoder=encoder_from_wire(message.encoder),
        public_sets=tuple(map(public_set_from_wire, message.public_sets)),
        maps=tuple(map(map_from_wire, message.maps)),
    )


def request_to_wire(request: AlignmentRequest) -> pb.AlignmentHeader:
    """Return the header of an alignment as a message."""
    return pb.AlignmentHeader(
        space=request.space,
        encoder=encoder_to_wire(request.encoder),
        public_set=request.public_set,
        rows=request.rows,
    )


def request_from_wire(message: pb.AlignmentHeader) -> AlignmentRequest:
    """Return the header of an alignment in a message."""
    return AlignmentRequest(
        space=bounded_text(message.space, "space's name"),
        encoder=encoder_from_wire(message.encoder),
        public_set=digest(message.public_set, "public set"),
        rows=message.rows,
    )


def covariances_to_wire(
    covariances: MapCovariances, space: str, encoder: str, public_set: str
) -> pb.RegisterMapRequest:
    """Return what a client registers about its map as a message."""
    upper = np.triu_indices(covariances.dimension)
    return pb.RegisterMapRequest(
        space=space,
        encoder=encoder,
        public_set=public_set,
        cross=covariances.cross[upper].astype("<f4").tobytes(),
        mapped=covariances.mapped[upper].astype("<f4").tobytes(),
    )


def covariances_from_wire(message: pb.RegisterMapRequest, dimension: int) -> MapCovariances:
    """Return what a client registers about its map, of a space of this dimension."""
    return MapCovariances(_symmetric(message.cross, dimension), _symmetric(message.mapped, dimension))


def _symmetric(values: bytes, dimension: int) -> NDArray[np.float32]:
    """Return a symmetric matrix from its upper triangle."""
    if len(values) != 2 * dimension * (dimension + 1):
        sent = (isqrt(2 * len(values) + 1) - 1) // 2
        raise InvalidInputError(
            f"{len(values)} bytes are not the upper triangle of a {dimension}×{dimension} float32 matrix, but about "
            f"that of a {sent}×{sent} one; the map leads to another space"
        )
    matrix = np.zeros((dimension, dimension), dtype=np.float32)
    matrix[np.triu_indices(dimension)] = np.frombuffer(values, dtype="<f4")
    below = np.tril_indices(dimension, -1)
    matrix[below] = matrix.T[below]  # and no sum, which numbers that are not finite would warn of
    return matrix


def rows_from_bytes(values: bytes, dimension: int) -> NDArray[np.float32]:
    """Return rows (n, dimension) from row-major little-endian float32.

    Raises:
        InvalidInputError: not whole rows, or none.
    """
    if not 1 <= dimension <= MAX_DIMENSION or not values or len(values) % (4 * dimension):
        raise InvalidInputError(f"{len(values)} bytes are not whole rows of {dimension} float32 values")
    return np.frombuffer(values, dtype="<f4").reshape(-1, dimension)


def offer_to_wire(offer: AlignmentOffer) -> pb.AlignmentOffer:
    """Return the offer as a message."""
    return pb.AlignmentOffer(session=offer.session, plan=plan_to_wire(offer.plan), next_block=offer.next_block)


def offer_from_wire(message: pb.AlignmentOffer, table: SecurityTable) -> AlignmentOffer:
    """Return the offer in a message."""
    plan = plan_from_wire(message.plan, table)
    if message.next_block > plan.counts[1]:
        raise InvalidInputError("the silo asks for an inner block that its plan does not have")
    return AlignmentOffer(message.session, plan, message.next_block)


def part_to_wire(part: CrossCovariancePart) -> pb.CrossCovariancePart:
    """Return the part of a cross-covariance as a message."""
    return pb.CrossCovariancePart(
        index=part.index, product=product_to_wire(part.product), squared_norm=part.squared_norm
    )


def part_from_wire(message: pb.CrossCovariancePart, plan: PackingPlan) -> CrossCovariancePart:
    """Return the part of a cross-covariance in a message, of a product under ``plan``."""
    if not (isfinite(message.squared_norm) and message.squared_norm > 0):
        raise InvalidInputError("the silo says that its embeddings have no spread, or an infinite one")
    return CrossCovariancePart(message.index, product_from_wire(message.product, plan.counts[2]), message.squared_norm)


def examples_from_wire(message: pb.SharedExamplesReply) -> tuple[str, ...]:
    """Return the shared examples in a message."""
    bounded_count(message.texts, "shared examples", MAX_EXAMPLES)
    return tuple(bounded_text(text, "shared example", MAX_TEXT) for text in message.texts)
