"""What is signed of a card: every field, in the form that PROTOCOL.md describes, and nothing that could be moved."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sealign.protocol.conversions.types import rows_to_wire
from sealign.protocol.rows import RowKind
from sealign.protocol.signing import (
    KeyChange,
    is_card_signed,
    key_change_content,
    keys_after,
    sign_card,
    signed_content,
)
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2, types_pb2
from tests.vectors.generate import HERE
from tests.vectors.signatures import FixedKey

VECTOR = json.loads((HERE / "signatures.json").read_text())
TEXT, BOOL, DOUBLE, INTEGER = "text", "bool", "double", "integer"
PLAN = (
    (1, "id", TEXT), (2, "parameter_set", TEXT), (3, "rows", INTEGER), (4, "dimension", INTEGER),
    (5, "outputs", INTEGER), (6, "block_rows", INTEGER), (7, "block_inner", INTEGER), (8, "block_outputs", INTEGER),
    (9, "input_scale_bits", INTEGER), (10, "weight_scale_bits", INTEGER), (11, "reply_bits", INTEGER),
    (12, "range", DOUBLE), (13, "precision", DOUBLE), (14, "row_norm", DOUBLE),
)  # fmt: skip
TASK_CARD = (
    (1, "name", TEXT), (2, "description", TEXT), (3, "labels", [TEXT]), (4, "temperature", DOUBLE),
    (5, "held_out_accuracy", DOUBLE), (6, "ood_scores", [((1, "name", TEXT), (2, "threshold", DOUBLE))]),
    (7, "plans", [PLAN]), (8, "revision", TEXT), (9, "reject", BOOL), (10, "directions", INTEGER),
    (11, "mapped_accuracy", DOUBLE), (12, "calibrated", BOOL), (13, "mapped_accuracy_margin", DOUBLE),
    (14, "preparing", BOOL),
)  # fmt: skip
WHOLE_TASK_CARD = (*TASK_CARD, (16, "kept_least", DOUBLE), (17, "kept_most", DOUBLE))
ROW_KIND = (
    (1, "encoder", TEXT), (2, "map_id", TEXT),
    (3, "client_map", ((1, "public_set", TEXT), (2, "registration", TEXT))), (4, "recentred", BOOL),
)  # fmt: skip


def written(kind: Any, value: Any) -> bytes:
    """A value by PROTOCOL.md, without the code that it describes."""
    if kind == TEXT:
        text: bytes = value.encode()
        return struct.pack("<I", len(text)) + text
    if kind == BOOL:
        return b"\1" if value else b"\0"
    if kind == INTEGER:
        return struct.pack("<Q", value)
    if kind == DOUBLE:
        return struct.pack("<d", value)
    if isinstance(kind, list):
        return struct.pack("<I", len(value)) + b"".join(written(kind[0], item) for item in value)
    present = [(number, of, value[name]) for number, name, of in kind if name in value]
    fields = b"".join(struct.pack("<I", number) + written(of, item) for number, of, item in present)
    return struct.pack("<I", len(present)) + fields


def test_the_vector_follows_from_the_page_alone() -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(VECTOR["public_key"]))
    for domain, fields, prefix in (
        (b"sealign card v1\0", TASK_CARD, ""),
        (b"sealign whole card v1\0", WHOLE_TASK_CARD, "whole_"),
    ):
        content = (
            domain
            + (written(TEXT, "sealign.v1.RowKind") + written(ROW_KIND, VECTOR["asked"]))
            + (written(TEXT, "sealign.v1.TaskCard") + written(fields, VECTOR["card"]))
        )
        assert content.hex() == VECTOR[f"{prefix}content"]
        key.verify(bytes.fromhex(VECTOR[f"{prefix}signature"]), content)  # raises otherwise
    change = VECTOR["key_change"]
    before, after = bytes.fromhex(change["before"]), bytes.fromhex(change["after"])
    key.verify(bytes.fromhex(change["signature"]), b"sealign signing key v1\0" + before + after)


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        (classification_pb2.TaskCard, range(1, 16)),
        (classification_pb2.OodScore, range(1, 3)),
        (generation_pb2.GenerationCard, range(1, 12)),
        (alignment_pb2.SpaceCard, range(1, 6)),
        (alignment_pb2.AlignReply, range(1, 3)),
        (alignment_pb2.AlignmentOffer, range(1, 5)),
        (silo_pb2.SiloCard, range(1, 12)),
        (silo_pb2.Limits, range(1, 5)),
        (types_pb2.Plan, range(1, 15)),
        (types_pb2.PublicSet, range(1, 6)),
        (types_pb2.MapCard, range(1, 11)),
        (types_pb2.EncoderCard, range(1, 5)),
        (types_pb2.RowKind, range(1, 5)),
    ],
)
def test_no_field_is_added_to_what_earlier_versions_sign(message: Any, numbers: range) -> None:
    """A field that is set and unknown to a client fails its check: PROTOCOL.md says how to add one instead."""
    added = {classification_pb2.TaskCard: [16, 17]}
    assert [field.number for field in message.DESCRIPTOR.fields] == [*numbers, *added.get(message, [])]


class TestChanges:
    """Whatever is changed in a signed card is noticed."""

    key = FixedKey(3)

    def signed(self) -> tuple[Any, Any]:
        message, asked = self._message(), rows_to_wire(RowKind("e" * 64, "1" * 32))
        sign_card(message, asked, self.key)
        assert is_card_signed(message, asked)
        return message, asked

    @staticmethod
    def _message() -> Any:
        message = classification_pb2.TaskCard()
        plan = types_pb2.Plan(id="p", rows=4, precision=0.25)
        message.CopyFrom(classification_pb2.TaskCard(name="t", labels=["a", "b"], temperature=1.0, plans=[plan]))
        message.ood_scores.add(name="energy", threshold=-1.0)
        return message

    @pytest.mark.parametrize(
        "change",
        [
            lambda card: card.labels.reverse(),
            lambda card: card.labels.append(""),
            lambda card: setattr(card.ood_scores[0], "threshold", -1.0000000001),
            lambda card: setattr(card.plans[0], "precision", 0.5),
            lambda card: setattr(card.plans[0], "rows", 5),
            lambda card: card.plans.add(),
            lambda card: setattr(card, "temperature", 2.0),
            lambda card: setattr(card, "calibrated", True),
            lambda card: setattr(card, "mapped_accuracy", 0.0),  # absent is another thing than zero
            lambda card: setattr(card, "revision", "r"),
            lambda card: card.ClearField("labels"),
        ],
    )
    def test_a_changed_field_is_noticed(self, change: Any) -> None:
        message, asked = self.signed()
        change(message)
        assert not is_card_signed(message, asked)

    def test_a_later_field_is_signed_apart(self) -> None:
        """A client that does not know it still finds its own fields signed."""
        plain, asked = self.signed()
        message = self._message()
        message.kept_least = 0.5
        sign_card(message, asked, self.key)
        assert message.signature.value == plain.signature.value
        assert is_card_signed(message, asked)
        for change in (
            lambda card: setattr(card, "kept_least", 0.25),
            lambda card: setattr(card, "kept_most", 1.0),
            lambda card: card.signature.ClearField("whole"),
            lambda card: setattr(card, "temperature", 2.0),
        ):
            changed = classification_pb2.TaskCard()
            changed.CopyFrom(message)
            change(changed)
            assert not is_card_signed(changed, asked)

    def test_a_card_is_of_one_question_and_one_kind(self) -> None:
        message, asked = self.signed()
        assert not is_card_signed(message, rows_to_wire(RowKind("e" * 64, "2" * 32)))
        assert not is_card_signed(message, types_pb2.RowKind())
        other = generation_pb2.GenerationCard(name="t")
        assert signed_content(other, asked)[:40] == signed_content(message, asked)[:40]
        other.signature.CopyFrom(message.signature)
        assert not is_card_signed(other, asked)

    def test_a_signature_of_another_key_or_none_is_noticed(self) -> None:
        message, asked = self.signed()
        message.signature.key = FixedKey(4).public
        assert not is_card_signed(message, asked)
        message.signature.key = b"short"
        assert not is_card_signed(message, asked)
        message.ClearField("signature")
        assert not is_card_signed(message, asked)

    def test_what_is_next_to_one_another_cannot_be_moved(self) -> None:
        """Lengths and counts stand before what they are of."""
        key, asked = self.key, types_pb2.RowKind()
        contents = set()
        for labels in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], []):
            message = classification_pb2.TaskCard(name="t", labels=labels)
            sign_card(message, asked, key)
            contents.add(signed_content(message, asked))
        contents.add(signed_content(classification_pb2.TaskCard(description="t"), asked))
        assert len(contents) == 6


def test_keys_follow_one_another_by_signatures_alone() -> None:
    first, second, third, stranger = map(FixedKey, (1, 2, 3, 4))

    def change(before: FixedKey, after: FixedKey, signer: FixedKey) -> KeyChange:
        return KeyChange(
            before.public, after.public, signer.private.sign(key_change_content(before.public, after.public))
        )

    good = (change(second, third, second), change(first, second, first))  # in any order
    assert keys_after(first.public, good) == {first.public, second.public, third.public}
    assert keys_after(third.public, good) == {third.public}
    forged = (*good, change(third, stranger, stranger), change(first, stranger, second))
    assert stranger.public not in keys_after(first.public, forged)
    assert keys_after(stranger.public, forged) == {stranger.public}


def test_the_vectors_card_sets_every_field() -> None:
    fields = {field.name for field in classification_pb2.TaskCard.DESCRIPTOR.fields}
    assert set(VECTOR["card"]) == fields - {"signature"}
