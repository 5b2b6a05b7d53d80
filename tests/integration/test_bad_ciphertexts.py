"""Requests that no honest client sends: one clear status each, and the silo goes on."""

from __future__ import annotations

import os
from collections.abc import Callable

import grpc
import numpy as np
import pytest

from sealign.ckks import PARAMETER_SETS, Cipher, PublicKey, SecretKey, SeededCiphertext
from sealign.errors import (
    DecryptionError,
    InsecureParametersError,
    InvalidInputError,
    NoMapError,
    NotFoundError,
    StalePlanError,
    UnknownKeyError,
)
from sealign.protocol.conversions.types import product_from_wire, public_key_to_wire
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1 import types_pb2
from tests.support.processes import Server
from tests.support.silo import Tls
from tests.support.wire import Embeddings, RawClient, raw_channel, refused, with_digest

pytestmark = pytest.mark.usefixtures("still_serves")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

Tamper = Callable[[types_pb2.SeededCiphertext], None]


def _truncate(c: types_pb2.SeededCiphertext) -> None:
    c.words = c.words[:-1]


def _empty(c: types_pb2.SeededCiphertext) -> None:
    c.words = b""


def _oversize(c: types_pb2.SeededCiphertext) -> None:
    c.words *= 50


def _second_polynomial(c: types_pb2.SeededCiphertext) -> None:
    c.words += bytes(len(c.words))


def _no_seed(c: types_pb2.SeededCiphertext) -> None:
    c.seed = b""


def _short_seed(c: types_pb2.SeededCiphertext) -> None:
    c.seed = c.seed[:32]


def _polynomial_for_seed(c: types_pb2.SeededCiphertext) -> None:
    c.seed = c.words


def _above_modulus(c: types_pb2.SeededCiphertext) -> None:
    c.words = b"\xff" * len(c.words)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (_truncate, "truncated, not in seeded form, or made under other parameters"),
        (_empty, "truncated"),
        (_oversize, "truncated, not in seeded form"),
        (_second_polynomial, "not in seeded form"),
        (_no_seed, "not in seeded form"),
        (_short_seed, "not in seeded form"),
        (_polynomial_for_seed, "not in seeded form"),
        (_above_modulus, "not residues of the modulus"),
    ],
)
def test_malformed_ciphertexts(raw: RawClient, query_rows: Embeddings, tamper: Tamper, message: str) -> None:
    request = raw.request(query_rows[:1])
    tamper(request.query.ciphertexts[0])
    with refused(INVALID, InvalidInputError, "do not match their digest"):
        raw.send(request)
    with refused(INVALID, InvalidInputError, message):
        raw.send(with_digest(request))


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_flipped_bit_is_noticed(raw: RawClient, query_rows: Embeddings, position: int) -> None:
    request = raw.request(query_rows[:1])
    words = bytearray(request.query.ciphertexts[0].words)
    words[position] ^= 1
    request.query.ciphertexts[0].words = bytes(words)
    with refused(INVALID, InvalidInputError, "damaged in transit"):
        raw.send(request)


def test_a_liar_gets_nothing_that_decrypts(raw: RawClient, query_rows: Embeddings) -> None:
    """Flipped bits under a matching digest are a valid ciphertext of garbage: only its sender is misled."""
    request = raw.request(query_rows[:1])
    words = np.frombuffer(request.query.ciphertexts[0].words, np.uint8).copy()
    words[::11] ^= 1
    request.query.ciphertexts[0].words = words.tobytes()
    reply = raw.send(with_digest(request))
    with pytest.raises(DecryptionError):
        raw.outputs(reply)


def test_random_ciphertexts(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    ciphertext = request.query.ciphertexts[0]
    ciphertext.words = os.urandom(len(ciphertext.words))
    with refused(INVALID, InvalidInputError, "digest"):
        raw.send(request)


@pytest.mark.parametrize("size", [1, 50, 5000])
def test_bytes_that_are_no_message(silo: Server, tls: Tls, size: int) -> None:
    with raw_channel(silo.address, tls.authority, tls.client) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/sealign.v1.Classification/Classify")
        with refused(INVALID, InvalidInputError, "Error parsing message"):
            call(b"\xff" * size, timeout=30)


def test_number_of_ciphertexts(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    del request.query.ciphertexts[:]
    with refused(INVALID, InvalidInputError, "the query holds 0 ciphertexts"):
        raw.send(with_digest(request))
    good = raw.request(query_rows[:1]).query.ciphertexts
    for _ in range(3):
        request.query.ciphertexts.extend(good)
    with refused(INVALID, InvalidInputError, f"the query holds {3 * len(good)} ciphertexts"):
        raw.send(with_digest(request))


def test_messages_above_32_mib(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    request.query.ciphertexts[0].words = bytes(33 << 20)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, None, "larger than max"):
        raw.send(request)


def test_ciphertexts_of_other_parameters(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    own = request.query.ciphertexts[0]
    width = len(own.words)
    for parameters in PARAMETER_SETS.values():
        seeded = SecretKey.generate(parameters).public_key.seeded  # an encryption of zero under that set
        if len(seeded.words) != width:
            own.CopyFrom(types_pb2.SeededCiphertext(seed=seeded.seed, words=seeded.words))
            with refused(INVALID, InvalidInputError, "made under other parameters"):
                raw.send(with_digest(request))


def test_key_of_another_parameter_set(raw: RawClient, query_rows: Embeddings) -> None:
    other = next(p for p in PARAMETER_SETS.values() if p != raw.plan.parameters)
    key = SecretKey.generate(other).public_key
    request = raw.request(query_rows[:1])
    request.key.CopyFrom(public_key_to_wire(key))
    request.query.key_id = key.id
    with refused(INVALID, InvalidInputError, f"not of {raw.plan.parameters.name}"):
        raw.send(with_digest(request))


@pytest.mark.parametrize("name", ["", "ckks-1024-27", "ckks-4096-120", "../../etc/passwd", "x" * 10_000])
def test_unknown_parameter_sets(raw: RawClient, query_rows: Embeddings, name: str) -> None:
    request = raw.request(query_rows[:1], with_key=True)
    request.key.parameter_set = name
    with refused(INVALID, InsecureParametersError, "is not known here"):
        raw.send(request)


def test_malformed_public_keys(raw: RawClient, query_rows: Embeddings) -> None:
    good = public_key_to_wire(raw.cipher.key.public_key)
    for seed, words in (
        (b"", good.words),
        (good.seed[:63], good.words),
        (good.seed, good.words[:-5]),
        (good.seed, good.words * 2),
        (good.seed, b"\xff" * len(good.words)),
        (good.words, good.words),
        (b"", b""),
    ):
        key = PublicKey(raw.plan.parameters, SeededCiphertext(seed, words))
        request = raw.request(query_rows[:1])
        request.key.CopyFrom(public_key_to_wire(key))
        request.query.key_id = key.id
        with refused(INVALID, InvalidInputError, "public key"):
            raw.send(with_digest(request))
    request.key.CopyFrom(types_pb2.PublicKey())
    with refused(INVALID, InsecureParametersError, "is not known here"):
        raw.send(request)


def test_a_key_that_the_query_does_not_name(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    request.key.CopyFrom(public_key_to_wire(SecretKey.generate(raw.plan.parameters).public_key))
    request.query.key_id = os.urandom(32)
    with refused(INVALID, InvalidInputError, "names another public key"):
        raw.send(with_digest(request))


def test_ciphertext_of_another_key(raw: RawClient, query_rows: Embeddings) -> None:
    stranger = Cipher(raw.plan, SecretKey.generate(raw.plan.parameters))
    foreign = RawClient(raw.stubs, raw.rows, raw.task, stranger).request(query_rows[:1])
    foreign.query.key_id = raw.cipher.key.public_key.id
    with refused(INVALID, InvalidInputError, "another key"):
        raw.send(foreign)
    # Under a matching digest the silo cannot know; the client does.
    with pytest.raises(DecryptionError, match="another key"):
        raw.outputs(raw.send(with_digest(foreign)))


def test_reply_for_another_key_is_refused_by_the_client(raw: RawClient, query_rows: Embeddings) -> None:
    reply = raw.send(raw.request(query_rows[:1]))
    stranger = Cipher(raw.plan, SecretKey.generate(raw.plan.parameters))
    with pytest.raises(InvalidInputError, match="another key"):
        stranger.decrypt(product_from_wire(reply.logits, 1 << 10), 1)


@pytest.mark.parametrize("key_id", [b"", b"\0" * 32, os.urandom(32), b"x" * 100_000])
def test_unknown_key(raw: RawClient, query_rows: Embeddings, key_id: bytes) -> None:
    request = raw.request(query_rows[:1])
    request.query.key_id = key_id
    with refused(PRECONDITION, UnknownKeyError, "send the key with the request"):
        raw.send(request)


def test_unknown_task(raw: RawClient, query_rows: Embeddings) -> None:
    for task in ("", "weather", "../topics", "w" * 100_000):
        request = raw.request(query_rows[:1])
        request.task = task
        with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "tasks are: topics"):
            raw.send(request)


@pytest.mark.parametrize("map_id", ["0" * 32, "f" * 32])
def test_unknown_map_says_how_to_align(raw: RawClient, query_rows: Embeddings, map_id: str) -> None:
    request = raw.request(query_rows[:1])
    request.rows.map_id = map_id
    with refused(PRECONDITION, NoMapError, "align first (sealign align --public FILE)"):
        raw.send(request)
    with refused(PRECONDITION, NoMapError, "align first"):
        raw.stubs.classification.DescribeTasks(pb.DescribeTasksRequest(rows=request.rows), timeout=30)


def test_a_map_of_another_encoder(raw: RawClient, query_rows: Embeddings) -> None:
    request = raw.request(query_rows[:1])
    request.rows.encoder = "0" * 64
    with refused(PRECONDITION, NoMapError, "another encoder"):
        raw.send(request)


@pytest.mark.parametrize("name", ["", "../maps/x", "é" * 50_000, "0" * 33])
def test_names_that_are_none(raw: RawClient, query_rows: Embeddings, name: str) -> None:
    for change in (
        lambda rows: setattr(rows, "encoder", name),
        lambda rows: setattr(rows, "map_id", name),
        lambda rows: setattr(rows.client_map, "public_set", name),
        lambda rows: setattr(rows.client_map, "registration", name),
        lambda rows: rows.ClearField("map_id"),
    ):
        request = raw.request(query_rows[:1])
        change(request.rows)
        with refused(INVALID, InvalidInputError, ""):
            raw.send(request)


@pytest.mark.parametrize("field", ["plan", "revision"])
def test_stale_plan_or_revision(raw: RawClient, query_rows: Embeddings, field: str) -> None:
    for value in ("", "0123456789abcdef", "z" * 10_000):
        request = raw.request(query_rows[:1])
        if field == "plan":
            request.query.plan = value
        else:
            request.revision = value
        with refused(PRECONDITION, StalePlanError, "describe it and encrypt again"):
            raw.send(request)


def test_a_bad_request_ends_a_stream_with_one_status(raw: RawClient, query_rows: Embeddings) -> None:
    good = raw.request(query_rows[:1])
    bad = raw.request(query_rows[:1])
    _truncate(bad.query.ciphertexts[0])
    replies = raw.stubs.classification.ClassifyStream(iter([good, with_digest(bad), good]), timeout=60)
    assert np.isfinite(raw.outputs(next(replies))).all()
    with refused(INVALID, InvalidInputError, "truncated"):
        next(replies)
