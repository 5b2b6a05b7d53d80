"""Wire messages and domain types: there and back, and what no honest peer sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

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
from sealign.protocol import MapCard, PublicSetCard, SiloCard, TaskCard
from sealign.protocol.conversions import (
    encoder_from_wire,
    encoder_to_wire,
    matrix_from_wire,
    matrix_to_wire,
    plan_from_wire,
    plan_to_wire,
    public_key_from_wire,
    public_key_to_wire,
    silo_from_wire,
    silo_to_wire,
    task_from_wire,
    task_to_wire,
)
from sealign.protocol.v1 import silo_pb2 as pb

CLASSICAL, POST_QUANTUM = SecurityTable.CLASSICAL, SecurityTable.POST_QUANTUM
SHAPE = ProductShape(1, 384, 8, 10.0, 8.0)
PLAN = plan_product(SHAPE)


def task(*plans: PackingPlan) -> TaskCard:
    return TaskCard("topics", "newswire", ("a", "b"), 0.7, 0.93, {"energy": 1.5, "max_logit": -0.5}, plans, "r1")


def test_cards_survive_the_wire() -> None:
    card = SiloCard(
        name="silo",
        tasks=(task(), replace(task(*candidates(SHAPE)), labels=tuple("abcdefgh"))),
        public_sets=(PublicSetCard("d" * 64, 300, "news"), PublicSetCard("e" * 64, 364, "more", "d" * 64, 0)),
        map=MapCard("c" * 64, "d" * 64, 300, 0.01, 0.5, 0.8, 0.6, "2026-01-01T00:00:00+00:00"),
        encoder="5" * 64,
        dimension=512,
    )
    assert silo_from_wire(pb.SiloCard.FromString(silo_to_wire(card).SerializeToString()), CLASSICAL) == card
    without = replace(card, map=None)
    assert silo_from_wire(silo_to_wire(without), CLASSICAL) == without


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
    with pytest.raises(InvalidInputError, match="packing plan: [a-z_.]+ is|another plan's name"):
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


def test_a_damaged_matrix_is_noticed() -> None:
    key = SecretKey.generate(PLAN.parameters)
    rows = np.zeros((1, PLAN.dimension), np.float32)
    matrix = Cipher(PLAN, key).encrypt(rows)
    message = matrix_to_wire(matrix)
    assert matrix_from_wire(message) == matrix
    for field, value in (("plan", "other"), ("key_id", b"other"), ("digest", b""), ("digest", bytes(16))):
        bad = pb.EncryptedMatrix.FromString(message.SerializeToString())
        setattr(bad, field, value)
        with pytest.raises(InvalidInputError, match="do not match their digest"):
            matrix_from_wire(bad)
