"""Wire messages and domain types: there and back, and what no honest peer sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sealign.alignment import MapCovariances
from sealign.ckks import (
    PARAMETER_SETS,
    Cipher,
    PackingPlan,
    ProductShape,
    SecretKey,
    SecurityTable,
    candidates,
    plan_product,
)
from sealign.encoders import EncoderCard
from sealign.errors import InsecureParametersError, InvalidInputError
from sealign.protocol import (
    AlignmentOffer,
    AlignmentRequest,
    ClientMap,
    GenerationCard,
    Limits,
    MapCard,
    PublicSetCard,
    RowKind,
    SiloCard,
    SpaceCard,
    TaskCard,
)
from sealign.protocol.conversions.alignment import (
    covariances_from_wire,
    covariances_to_wire,
    examples_from_wire,
    offer_from_wire,
    offer_to_wire,
    request_from_wire,
    request_to_wire,
    rows_from_bytes,
    space_from_wire,
    space_to_wire,
)
from sealign.protocol.conversions.classification import task_from_wire, task_to_wire
from sealign.protocol.conversions.generation import generation_from_wire, generation_to_wire
from sealign.protocol.conversions.silo import silo_from_wire, silo_to_wire
from sealign.protocol.conversions.types import (
    encoder_from_wire,
    encoder_to_wire,
    matrix_from_wire,
    matrix_to_wire,
    plan_from_wire,
    plan_to_wire,
    public_key_from_wire,
    public_key_to_wire,
    rows_from_wire,
    rows_to_wire,
)
from sealign.protocol.v1 import alignment_pb2, silo_pb2
from sealign.protocol.v1 import types_pb2 as pb

CLASSICAL, POST_QUANTUM = SecurityTable.CLASSICAL, SecurityTable.POST_QUANTUM
SHAPE = ProductShape(1, 384, 8, 10.0, 8.0)
PLAN = plan_product(SHAPE)


def task(*plans: PackingPlan) -> TaskCard:
    return TaskCard("topics", "newswire", ("a", "b"), 0.7, 0.93, {"energy": 1.5, "max_logit": -0.5}, plans, "r1")


def test_tasks_survive_the_wire() -> None:
    for card in (task(), replace(task(*candidates(SHAPE)), labels=tuple("abcdefgh"), calibrated=True)):
        assert task_from_wire(task_to_wire(card), CLASSICAL) == card


def test_silo_cards_survive_the_wire() -> None:
    card = SiloCard("silo", "0.1.0", "CN=lab", ("embeddings", "generation/prose"), ("topics",), ("prose",), Limits(32))
    assert silo_from_wire(silo_pb2.SiloCard.FromString(silo_to_wire(card).SerializeToString())) == card
    limited = replace(card, limits=Limits(1024, 0, may_align=False, shares_examples=True))
    assert silo_from_wire(silo_to_wire(limited)) == limited
    with pytest.raises(InvalidInputError, match="silo's name has 300 characters"):
        silo_from_wire(silo_to_wire(replace(card, name="x" * 300)))
    with pytest.raises(InvalidInputError, match="5000 tasks are more than"):
        silo_from_wire(silo_to_wire(replace(card, tasks=("t",) * 5000)))


def test_space_cards_survive_the_wire() -> None:
    encoder = EncoderCard(name="model", dimension=384, fingerprint="0f" * 32)
    learned = MapCard("a" * 32, "c" * 64, "d" * 64, 300, 0.01, 0.5, 0.8, None, "2026-01-01T00:00:00+00:00")
    sets = (PublicSetCard("d" * 64, 300, "news"), PublicSetCard("e" * 64, 364, "more", "d" * 64, 0))
    card = SpaceCard("embeddings", encoder, sets, (learned,))
    assert space_from_wire(alignment_pb2.SpaceCard.FromString(space_to_wire(card).SerializeToString())) == card
    for bad in (replace(learned, id="../x"), replace(learned, penalty=float("nan")), replace(learned, encoder="")):
        with pytest.raises(InvalidInputError):
            space_from_wire(space_to_wire(replace(card, maps=(bad,))))


@pytest.mark.parametrize(
    "rows",
    [
        RowKind("f" * 64, "a" * 32),
        RowKind("f" * 64, ClientMap("d" * 64), recentred=True),
        RowKind("f" * 64, ClientMap("d" * 64, "b" * 32)),
    ],
)
def test_kinds_of_rows_survive_the_wire(rows: RowKind) -> None:
    assert rows_from_wire(pb.RowKind.FromString(rows_to_wire(rows).SerializeToString())) == rows


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (pb.RowKind(), "fingerprint"),
        (pb.RowKind(encoder="f" * 64), "names a map"),
        (pb.RowKind(encoder="f" * 64, map_id="short"), "map_id"),
        (pb.RowKind(encoder="f" * 64, client_map=pb.ClientMap()), "public set"),
        (pb.RowKind(encoder="f" * 64, client_map=pb.ClientMap(public_set="d" * 64, registration="")), "registration"),
    ],
)
def test_kinds_of_rows_that_name_nothing(message: pb.RowKind, what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        rows_from_wire(message)


def test_what_an_alignment_says_survives_the_wire() -> None:
    encoder = EncoderCard(name="model", dimension=384, fingerprint="0f" * 32)
    request = AlignmentRequest("generation/prose", encoder, "d" * 64, 300)
    assert request_from_wire(request_to_wire(request)) == request
    offer = AlignmentOffer(b"s" * 16, PLAN, 1)
    assert offer_from_wire(offer_to_wire(offer), CLASSICAL) == offer
    with pytest.raises(InvalidInputError, match="inner block"):
        offer_from_wire(offer_to_wire(replace(offer, next_block=PLAN.counts[1] + 1)), CLASSICAL)


def test_covariances_survive_the_wire_and_fit_the_space() -> None:
    cross = np.arange(9, dtype=np.float32).reshape(3, 3)
    cross = cross + cross.T
    message = covariances_to_wire(MapCovariances(cross, cross * 2), "embeddings", "f" * 64, "d" * 64)
    back = covariances_from_wire(message, 3)
    assert np.array_equal(back.cross, cross)
    assert np.array_equal(back.mapped, cross * 2)
    with pytest.raises(InvalidInputError, match="4×4"):
        covariances_from_wire(message, 4)


@pytest.mark.parametrize(("values", "dimension"), [(b"", 2), (b"1234567", 2), (b"12345678", 0), (b"x" * 12, 2)])
def test_bytes_that_are_not_whole_rows(values: bytes, dimension: int) -> None:
    with pytest.raises(InvalidInputError, match="not whole rows"):
        rows_from_bytes(values, dimension)


def test_shared_examples_are_bounded() -> None:
    assert examples_from_wire(alignment_pb2.SharedExamplesReply(texts=["a", "b"])) == ("a", "b")
    with pytest.raises(InvalidInputError, match="129 shared examples"):
        examples_from_wire(alignment_pb2.SharedExamplesReply(texts=["a"] * 129))


def test_generation_cards_survive_the_wire_and_bad_ones_do_not() -> None:
    model = EncoderCard(name="model", dimension=384, fingerprint="0f" * 32)
    plan = plan_product(ProductShape(1, 384, 50, 10.0, 8.0))
    card = GenerationCard("prose", "", model, 50, "a" * 64, 1000, 64, plan, "r")
    assert generation_from_wire(generation_to_wire(card), CLASSICAL) == card
    for bad in (
        replace(card, vocabulary=51),
        replace(card, tokenizer="../x"),
        replace(card, tokenizer_bytes=1 << 27),
        replace(card, max_tokens=0),
    ):
        with pytest.raises(InvalidInputError, match="do not fit its vocabulary"):
            generation_from_wire(generation_to_wire(bad), CLASSICAL)


def test_encoder_cards_survive_the_wire_and_bad_ones_do_not() -> None:
    card = EncoderCard(name="model", dimension=384, fingerprint="0f" * 32, normalised=False)
    message = encoder_to_wire(card)
    assert encoder_from_wire(message) == card
    for field, value in (("name", ""), ("dimension", 0), ("fingerprint", "0F" * 32), ("fingerprint", "../x")):
        bad = pb.EncoderCard.FromString(message.SerializeToString())
        setattr(bad, field, value)
        with pytest.raises(InvalidInputError, match="encoder card is incomplete"):
            encoder_from_wire(bad)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "0123456789abcdef"),
        ("rows", 0),
        ("rows", 1 << 25),
        ("dimension", 0),
        ("outputs", 0),
        ("block_rows", 0),
        ("block_inner", 1 << 20),
        ("block_outputs", 4000),
        ("input_scale_bits", 0),
        ("input_scale_bits", 60),
        ("weight_scale_bits", 0),
        ("reply_bits", 0),
        ("reply_bits", 64),
        ("range", 0.0),
        ("range", float("inf")),
        ("range", float("nan")),
        ("range", 1e9),
        ("precision", -1.0),
        ("precision", float("nan")),
        ("row_norm", 0.0),
        ("row_norm", 1e12),
    ],
)
def test_plans_that_contradict_themselves(field: str, value: object) -> None:
    message = plan_to_wire(PLAN)
    setattr(message, field, value)
    with pytest.raises(InvalidInputError, match=r"packing plan: [a-z_.]+ is|another plan's name"):
        plan_from_wire(message, CLASSICAL)


def test_a_plan_under_another_id_is_refused() -> None:
    message = plan_to_wire(PLAN)
    message.precision *= 2
    with pytest.raises(InvalidInputError, match="another plan's name"):
        plan_from_wire(message, CLASSICAL)


def test_a_lie_about_scales_cannot_be_expressed() -> None:
    """A plan whose outputs would not fit the modulus does not exist, whatever its id."""
    for lie in (
        {"range": PLAN.range * 8},
        {"input_scale_bits": PLAN.parameters.modulus_bits},
        {"reply_bits": PLAN.parameters.modulus_bits},
    ):
        with pytest.raises(InvalidInputError, match=f"packing plan: {next(iter(lie))} is"):
            replace(PLAN, **lie)


def test_parameter_sets_are_known_and_secure_here() -> None:
    weak = next(p for p in PARAMETER_SETS.values() if p.security_level(POST_QUANTUM) < 128)
    message = plan_to_wire(replace(PLAN, parameters=weak))
    with pytest.raises(InsecureParametersError, match=f"{weak.name}.*post_quantum table; at least 128"):
        plan_from_wire(message, POST_QUANTUM)
    with pytest.raises(InsecureParametersError, match="at least 128"):
        task_from_wire(task_to_wire(task(replace(PLAN, parameters=weak))), POST_QUANTUM)
    key = public_key_to_wire(SecretKey.generate(weak).public_key)
    assert public_key_from_wire(key, CLASSICAL).parameters == weak
    with pytest.raises(InsecureParametersError, match="post_quantum"):
        public_key_from_wire(key, POST_QUANTUM)
    message.parameter_set = "ckks-1024-54"
    with pytest.raises(InsecureParametersError, match="is not known here"):
        plan_from_wire(message, CLASSICAL)


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("temperature", float("nan"))])
def test_tasks_without_temperature(field: str, value: float) -> None:
    message = task_to_wire(task())
    setattr(message, field, value)
    with pytest.raises(InvalidInputError, match="without labels or temperature"):
        task_from_wire(message, CLASSICAL)


def test_a_task_has_a_label_for_each_output() -> None:
    eight = replace(task(PLAN), labels=tuple("abcdefgh"))
    assert task_from_wire(task_to_wire(eight), CLASSICAL) == eight
    for labels in ("", "a", "abcdefg", "abcdefghi"):
        with pytest.raises(InvalidInputError, match=r"without labels|other than its outputs|at least 2 classes"):
            task_from_wire(task_to_wire(replace(eight, labels=tuple(labels))), CLASSICAL)


def test_a_matrix_of_too_many_ciphertexts_is_refused_unread() -> None:
    message = pb.EncryptedMatrix(ciphertexts=[pb.SeededCiphertext()] * 5)
    with pytest.raises(InvalidInputError, match="holds 5 ciphertexts"):
        matrix_from_wire(message, 4)


def test_a_damaged_matrix_is_noticed() -> None:
    key = SecretKey.generate(PLAN.parameters)
    rows = np.zeros((1, PLAN.dimension), np.float32)
    matrix = Cipher(PLAN, key).encrypt(rows)
    message = matrix_to_wire(matrix)
    assert matrix_from_wire(message, 4) == matrix
    for field, value in (("plan", "other"), ("key_id", b"other"), ("digest", b""), ("digest", bytes(16))):
        bad = pb.EncryptedMatrix.FromString(message.SerializeToString())
        setattr(bad, field, value)
        with pytest.raises(InvalidInputError, match="do not match their digest"):
            matrix_from_wire(bad, 4)
