"""Somebody between client and silo who ends TLS on both sides, and changes cards: refused by the silo's signature.

The client's certificate check is out of the way here: the relay has a certificate that the client trusts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealign.errors import InvalidInputError, SealignError, UntrustedCardError
from sealign.protocol.signing import KeyChange, key_change_content
from sealign_client import Client
from sealign_client.local.silo_keys import SiloKeys
from tests.support.fakesilo import LABELS, Address, FakeSilo, clear_labels
from tests.support.processes import command
from tests.support.views import PUBLIC, clear_queries, client_encoder

QUERIES = clear_queries(8)
Change = Callable[[Any], None]


@pytest.fixture
def client(address: Address, tmp_path: Path) -> Iterator[Client]:
    with made(address, tmp_path) as client:
        yield client


def made(address: Address, tmp_path: Path, **settings: Any) -> Client:
    return Client(
        **address.settings(map_directory=tmp_path / "maps", timeout=10.0, **settings), encoder=client_encoder()
    )


def on(method: str, change: Change) -> Callable[[str, Any], Any]:
    """Change the replies of one method."""

    def changed(called: str, reply: Any) -> Any:
        if called == method:
            change(reply)
        return reply

    return changed


def _plan_of(message: Any, precision: float) -> None:
    """A plan of coarser answers under its right id, as nothing but the signature tells from the silo's."""
    from dataclasses import replace

    from sealign.protocol.conversions import types as wire
    from tests.support.fakesilo import TABLE

    message.CopyFrom(wire.plan_to_wire(replace(wire.plan_from_wire(message, TABLE), precision=precision)))


TASK_CHANGES: dict[str, Change] = {
    "label order": lambda reply: reply.tasks[0].labels.reverse(),
    "label": lambda reply: reply.tasks[0].labels.__setitem__(0, "crimson"),
    "threshold": lambda reply: setattr(reply.tasks[0].ood_scores[0], "threshold", -1e9),
    "temperature": lambda reply: setattr(reply.tasks[0], "temperature", 100.0),
    "plan": lambda reply: _plan_of(reply.tasks[0].plans[0], 0.5),
    "no plan for batches": lambda reply: reply.tasks[0].plans.__delitem__(1),
    "promise": lambda reply: setattr(reply.tasks[0], "mapped_accuracy", 0.999),
    "signature left out": lambda reply: reply.tasks[0].ClearField("signature"),
}


@pytest.mark.parametrize("change", TASK_CHANGES.values(), ids=TASK_CHANGES)
def test_a_changed_task_card_is_refused_before_anything_is_encrypted(
    client: Client, fake: FakeSilo, change: Change
) -> None:
    client.align(PUBLIC)
    fake.relay = on("DescribeTasks", change)
    with pytest.raises(UntrustedCardError, match=r"is not what the silo has signed.*ask its operator"):
        client.classify(QUERIES)
    assert not fake.queries
    fake.relay = lambda _, reply: reply
    labels, certain = clear_labels(fake, client, QUERIES)
    found = [result.label for result in client.classify(QUERIES)]
    assert [label for label, is_certain in zip(found, certain, strict=True) if is_certain] == [
        label for label, is_certain in zip(labels, certain, strict=True) if is_certain
    ]


def test_without_a_signature_reordered_labels_would_be_believed(client: Client, fake: FakeSilo) -> None:
    """The ingredients: the same change by the silo, whose key signs it, turns every answer into another."""
    client.align(PUBLIC)
    right = [result.label for result in client.classify(QUERIES)]
    fake.tamper = on("DescribeTasks", TASK_CHANGES["label order"])
    client.describe(refresh=True)
    wrong = [result.label for result in client.classify(QUERIES)]
    assert wrong == [LABELS[2 - LABELS.index(label)] for label in right]


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("Describe", lambda reply: setattr(reply.limits, "rows_per_request", 1)),
        ("Describe", lambda reply: setattr(reply, "name", "another")),
        ("DescribeSpace", lambda reply: setattr(reply.encoder, "fingerprint", "f" * 64)),
        ("DescribeSpace", lambda reply: setattr(reply.public_sets[0], "rows", 7)),
        ("Align", lambda reply: setattr(reply.map, "id", "f" * 32)),
    ],
)
def test_other_changed_cards_are_refused(client: Client, fake: FakeSilo, method: str, change: Change) -> None:
    fake.relay = on(method, change)
    with pytest.raises(UntrustedCardError, match="is not what the silo has signed"):
        client.align(PUBLIC)


def test_a_changed_offer_is_refused(client: Client, fake: FakeSilo) -> None:
    def change(reply: Any) -> None:
        if reply.WhichOneof("part") == "offer":
            _plan_of(reply.offer.plan, 0.5)

    fake.relay = on("AlignEncrypted", change)
    with pytest.raises(UntrustedCardError, match="AlignmentOffer"):
        client.align(PUBLIC, mode="encrypted")
    assert not fake.keys


def test_the_card_of_another_map_is_refused(client: Client, fake: FakeSilo) -> None:
    """Signed by the silo, for another question: with thresholds of other rows."""
    client.align(PUBLIC)
    kept: list[Any] = []
    fake.relay = on("DescribeTasks", lambda reply: kept.append(type(reply).FromString(reply.SerializeToString())))
    client.classify(QUERIES)
    client.align(PUBLIC, mode="encrypted")  # rows are mapped here from now on
    fake.relay = on("DescribeTasks", lambda reply: reply.CopyFrom(kept[0]))
    with pytest.raises(UntrustedCardError, match="is not what the silo has signed"):
        client.classify(QUERIES)


class TestKeys:
    """The key is the one that was there at first, or that its operator named."""

    def test_somebody_with_a_key_of_his_own_is_refused_by_one_that_says_what_to_do(
        self, client: Client, fake: FakeSilo, address: Address, tmp_path: Path
    ) -> None:
        client.align(PUBLIC)
        first, fake.key = fake.key, Ed25519PrivateKey.generate()
        with pytest.raises(UntrustedCardError, match="this client pinned key") as caught:
            client.describe(refresh=True)
        pinned = first.public_key().public_bytes_raw().hex()
        assert pinned in str(caught.value)
        assert f"sealign silo-keys delete localhost:{address.port}" in str(caught.value)
        with made(address, tmp_path) as later, pytest.raises(UntrustedCardError):  # also in another process's place
            later.classify(QUERIES)
        assert not fake.queries
        done = command(
            "sealign", "silo-keys", "delete", f"localhost:{address.port}", "--map-directory", tmp_path / "maps"
        )
        assert done.returncode == 0, done.stderr
        with made(address, tmp_path) as accepting:
            accepting.classify(QUERIES)
        shown = command("sealign", "silo-keys", "list", "--json", "--map-directory", tmp_path / "maps")
        (row,) = json.loads(shown.stdout)
        assert row["key"] == fake.key.public_key().public_bytes_raw().hex()
        (file,) = (tmp_path / "maps").glob("*.silokey")
        assert file.stat().st_mode & 0o777 == 0o600

    def test_a_card_of_another_key_than_the_silos_is_refused(self, client: Client, fake: FakeSilo) -> None:
        """The relay leaves the silo's own card as it is, and signs the others itself."""
        client.align(PUBLIC)
        other = FakeSilo()

        def resign(reply: Any) -> None:
            from sealign.protocol.signing import sign_card

            for card in reply.tasks:
                card.labels.reverse()
                sign_card(card, fake.asked, other)

        fake.relay = on("DescribeTasks", resign)
        with pytest.raises(UntrustedCardError, match="another key has signed"):
            client.classify(QUERIES)

    def test_a_rotated_key_is_followed_and_pinned_and_there_is_no_way_back(
        self, client: Client, fake: FakeSilo, address: Address, tmp_path: Path
    ) -> None:
        client.align(PUBLIC)
        first, fake.key = fake.key, Ed25519PrivateKey.generate()
        before, after = (key.public_key().public_bytes_raw() for key in (first, fake.key))
        forged = KeyChange(before, after, fake.key.sign(key_change_content(before, after)))
        fake.key_changes = (forged,)
        with pytest.raises(UntrustedCardError):
            client.describe(refresh=True)
        fake.key_changes = (forged, KeyChange(before, after, first.sign(key_change_content(before, after))))
        client.classify(QUERIES)  # its key is asked for again when a card of another key comes
        keys = SiloKeys(tmp_path / "maps")
        pinned = keys.pinned(f"localhost:{address.port}")
        assert pinned is not None
        assert pinned.key == after.hex()
        fake.key = first
        with made(address, tmp_path) as client, pytest.raises(UntrustedCardError):
            client.silo()

    def test_a_key_that_is_named_beforehand_leaves_no_first_use(
        self, fake: FakeSilo, address: Address, tmp_path: Path
    ) -> None:
        key = fake.key.public_key().public_bytes_raw().hex()
        with made(address, tmp_path, silo_key=key) as client:
            client.align(PUBLIC)
        assert not list((tmp_path / "maps").glob("*.silokey"))
        refusal = f"signs with key {key}, and silo_key is 0000"
        with made(address, tmp_path, silo_key="0" * 64) as client, pytest.raises(UntrustedCardError, match=refusal):
            client.silo()
        with pytest.raises(InvalidInputError, match="silo_key"):
            made(address, tmp_path, silo_key="not a key")

    def test_a_damaged_pin_is_named(self, client: Client, address: Address, tmp_path: Path) -> None:
        client.silo()
        (file,) = (tmp_path / "maps").glob("*.silokey")
        file.write_text("{}")
        with made(address, tmp_path) as other, pytest.raises(SealignError, match=r"\.silokey.*is damaged"):
            other.silo()
