"""What reads bytes of the other side, at the silo and at the client, with a real message of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from grpc.aio import AioRpcError, Metadata

from sealign.alignment import MapCovariances
from sealign.app.bounded import parse
from sealign.ckks import Cipher, Evaluator, ProductShape, SecretKey, SecurityTable, ZeroPool, plan_product
from sealign.encoders import EncoderCard
from sealign.errors import OverloadedError
from sealign.protocol import (
    AlignmentOffer,
    AlignmentRequest,
    ClientMap,
    CrossCovariancePart,
    GenerationCard,
    Limits,
    MapCard,
    PublicSetCard,
    RowKind,
    SiloCard,
    SpaceCard,
    TaskCard,
)
from sealign.protocol.conversions import alignment, classification, generation, silo, types
from sealign.protocol.status import DETAILS_KEY, error_of, trailers_of
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2

_TABLE = SecurityTable.CLASSICAL
_DIMENSION, _OUTPUTS = 24, 3
_ENCODER = EncoderCard(name="model", dimension=_DIMENSION, fingerprint="0f" * 32)
_ROWS = RowKind("f" * 64, ClientMap("d" * 64, "b" * 32))


@dataclass(frozen=True)
class Decoder:
    """A kind of message, what becomes of it, and a real one."""

    name: str
    decode: Callable[[bytes], object]
    message: bytes


def _of(kind: type[Message], message: Message, use: Callable[[Any], object]) -> Decoder:
    return Decoder(kind.DESCRIPTOR.name, lambda raw: use(parse(kind, raw)), message.SerializeToString())


def decoders() -> list[Decoder]:
    """Return all of them."""
    plan = plan_product(ProductShape(1, _DIMENSION, _OUTPUTS, 4.0, 4.0))
    key = SecretKey.generate(plan.parameters)
    cipher = Cipher(plan, key)
    weight = np.eye(_DIMENSION)[:, :_OUTPUTS]
    matrix = cipher.encrypt(np.eye(1, _DIMENSION))
    product = Evaluator(plan, weight, np.zeros(_OUTPUTS)).evaluate(matrix, ZeroPool(key.public_key))
    query = {"task": "t", "revision": "r", "rows": types.rows_to_wire(_ROWS), "query": types.matrix_to_wire(matrix)}
    public = types.public_key_to_wire(key.public_key)
    return [*_of_the_silo(query, public), *_of_the_client(plan, types.product_to_wire(product), product), _status()]


def _of_the_silo(query: dict[str, Any], key: Any) -> list[Decoder]:
    def read_query(message: Any) -> object:
        types.rows_from_wire(message.rows)
        if message.HasField("key"):
            types.public_key_from_wire(message.key, _TABLE)
        return types.matrix_from_wire(message.query, 4)

    def read_alignment(message: Any) -> object:
        part = message.WhichOneof("part")
        if part == "header":
            if message.header.HasField("key"):
                types.public_key_from_wire(message.header.key, _TABLE)
            return alignment.request_from_wire(message.header.alignment)
        return types.matrix_from_wire(message.block.rows, 64) if part == "block" else None

    header = alignment.request_to_wire(AlignmentRequest("embeddings", _ENCODER, "d" * 64, 400))
    encrypted = alignment_pb2.AlignEncryptedHeader(alignment=header, key=key, session=b"s" * 16, check_rows=24)
    block = alignment_pb2.InnerBlock(index=1, rows=query["query"])
    square = np.eye(_DIMENSION, dtype=np.float32)
    register = alignment.covariances_to_wire(
        MapCovariances(square, square), "embeddings", _ENCODER.fingerprint, "d" * 64
    )
    classify, next_token = classification_pb2.ClassifyRequest, generation_pb2.NextTokenRequest
    requests = alignment_pb2.AlignEncryptedRequest
    return [
        _of(classify, classify(key=key, **query), read_query),
        _of(next_token, next_token(key=key, **query), read_query),
        _of(requests, requests(header=encrypted), read_alignment),
        _of(requests, requests(block=block), read_alignment),
        _of(
            alignment_pb2.AlignRequest,
            alignment_pb2.AlignRequest(rows=alignment_pb2.EmbeddingRows(values=bytes(4 * _DIMENSION * 8))),
            lambda message: alignment.rows_from_bytes(message.rows.values, _DIMENSION),
        ),
        _of(
            alignment_pb2.RegisterMapRequest,
            register,
            lambda message: alignment.covariances_from_wire(message, _DIMENSION),
        ),
    ]


def _of_the_client(plan: Any, wire: Any, product: Any) -> list[Decoder]:
    task = TaskCard("topics", "news", ("a", "b", "c"), 1.0, 0.9, {"energy": 1.5}, (plan,), "r1")
    learned = MapCard("a" * 32, "c" * 64, "d" * 64, 300, 0.01, 0.5, 0.8, None, "2026-01-01T00:00:00+00:00")
    space = SpaceCard("embeddings", _ENCODER, (PublicSetCard("d" * 64, 300, "news"),), (learned,))
    card = SiloCard("silo", "0.1.0", "CN=lab", ("embeddings",), ("topics",), ("prose",), Limits(32))
    offer = alignment.offer_to_wire(AlignmentOffer(b"s" * 16, plan, 0))
    part = alignment.part_to_wire(CrossCovariancePart(0, product, 2.5))
    written = GenerationCard("prose", "", _ENCODER, _OUTPUTS, "e" * 64, 5000, 64, plan, "r1")
    return [
        _of(
            classification_pb2.TaskCard,
            classification.task_to_wire(task),
            lambda m: classification.task_from_wire(m, _TABLE),
        ),
        _of(
            classification_pb2.ClassifyReply,
            classification_pb2.ClassifyReply(logits=wire),
            lambda m: types.product_from_wire(m.logits, 4),
        ),
        _of(alignment_pb2.SpaceCard, alignment.space_to_wire(space), alignment.space_from_wire),
        _of(alignment_pb2.AlignmentOffer, offer, lambda m: alignment.offer_from_wire(m, _TABLE)),
        _of(alignment_pb2.CrossCovariancePart, part, lambda m: alignment.part_from_wire(m, plan)),
        _of(
            alignment_pb2.SharedExamplesReply,
            alignment_pb2.SharedExamplesReply(texts=["one", "two"]),
            alignment.examples_from_wire,
        ),
        _of(silo_pb2.SiloCard, silo.silo_to_wire(card), silo.silo_from_wire),
        _of(
            generation_pb2.GenerationCard,
            generation.generation_to_wire(written),
            lambda m: generation.generation_from_wire(m, _TABLE),
        ),
    ]


def _status() -> Decoder:
    """Details of a failed call, which are parsed outside the frame."""
    ((_, real),) = trailers_of(OverloadedError("try again", retry_after=1.5))

    def decode(raw: bytes) -> object:
        trailers = Metadata((DETAILS_KEY, raw))
        return error_of(AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), trailers, "details"), "the silo")

    return Decoder("Status", decode, real)
