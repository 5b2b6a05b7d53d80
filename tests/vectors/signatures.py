"""The vector of signed cards: a key that everybody knows, a card in all its fields, and what is signed."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.json_format import MessageToDict

from sealign.ckks import PackingPlan, plan_product
from sealign.ckks.planner import ProductShape
from sealign.protocol import ClientMap, RowKind, TaskCard
from sealign.protocol.conversions.classification import task_to_wire
from sealign.protocol.conversions.types import rows_to_wire
from sealign.protocol.signing import key_change_content, sign_card, signed_content


class FixedKey:
    """A signing key of 32 equal bytes."""

    def __init__(self, byte: int) -> None:
        self.secret = bytes([byte]) * 32
        self.private = Ed25519PrivateKey.from_private_bytes(self.secret)
        self.public = self.private.public_key().public_bytes_raw()

    def sign(self, content: bytes) -> tuple[bytes, bytes]:
        return self.public, self.private.sign(content)


def card(plan: PackingPlan) -> TaskCard:
    """A task card in which every field is set."""
    return TaskCard(
        name="topics",
        description="Was ist das? Größe zählt nicht.",
        labels=("economy", "sport", "weather"),
        temperature=1.25,
        held_out_accuracy=0.9375,
        ood_thresholds={"energy": -2.5, "max_softmax": 0.5},
        plans=(plan,),
        revision="0123456789abcdef0123456789abcdef",
        reject=True,
        directions=2,
        mapped_accuracy=0.875,
        calibrated=True,
        mapped_accuracy_margin=0.03125,
        preparing=True,
        kept=(0.75, 1.0),
    )


def signatures() -> Any:
    """The document of signatures.json."""
    key, later = FixedKey(7), FixedKey(8)
    plan = plan_product(ProductShape(1, 24, 5, frobenius_norm=2.0, range=4.0))
    message = task_to_wire(card(plan))
    rows = RowKind("e" * 64, ClientMap("d" * 64, "a" * 32), recentred=True)
    asked = rows_to_wire(rows)
    sign_card(message, asked, key)
    change = key_change_content(key.public, later.public)
    shown = MessageToDict(message, preserving_proto_field_name=True)
    return {
        "secret_key": key.secret.hex(),
        "public_key": key.public.hex(),
        "asked": MessageToDict(asked, preserving_proto_field_name=True),
        "card": {name: value for name, value in shown.items() if name != "signature"},
        "content": signed_content(message, asked).hex(),
        "signature": message.signature.value.hex(),
        "whole_content": signed_content(message, asked, whole=True).hex(),
        "whole_signature": message.signature.whole.hex(),
        "key_change": {
            "before": key.public.hex(),
            "after": later.public.hex(),
            "content": change.hex(),
            "signature": key.private.sign(change).hex(),
        },
    }
