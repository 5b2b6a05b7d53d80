"""A malicious silo against a client: attacks that work on the unprotected ingredients, and fail on the client."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealign.ckks import (
    Cipher,
    EncryptedProduct,
    Evaluator,
    PackingPlan,
    ReplyCiphertext,
    SecretKey,
    ZeroPool,
    plan_product,
    product_shape,
)
from sealign.ckks.serialization import pack_words, unpack_words
from sealign.errors import (
    DecryptionError,
    InsecureParametersError,
    InvalidInputError,
    NoMapError,
    SealignError,
    VerificationError,
)
from sealign.protocol.conversions import types as wire
from sealign_client import Client
from sealign_client.cli import main
from sealign_client.retry import RETRIED
from tests.support.fakesilo import EXAMPLES, TABLE, Address, FakeSilo
from tests.support.views import PUBLIC, ViewEncoder, clear_queries, client_encoder

QUERIES = clear_queries(150)
ESCAPE = "\x1b]0;owned\x07\x1b[2Jred"


@pytest.fixture
def encoder() -> ViewEncoder:
    return client_encoder()


@pytest.fixture
def client(address: Address, encoder: ViewEncoder, tmp_path: Path) -> Iterator[Client]:
    with Client(**address.settings(map_directory=tmp_path / "maps", timeout=10.0), encoder=encoder) as client:
        yield client


def on(method: str, change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """Tamper with the replies of one method."""

    def tamper(called: str, reply: Any) -> Any:
        return change(reply) if called == method else reply

    return tamper


class TestAnotherMap:
    """The silo serves a map that the client did not learn, as after a fellow client's poisoning."""

    def test_a_map_that_replaces_the_pinned_one_is_refused(self, client: Client, fake: FakeSilo) -> None:
        learned = client.align(PUBLIC)
        before = client.classify(QUERIES)
        poisoned = replace(fake.maps[-1], weight=-fake.maps[-1].weight)
        # The ingredients: nothing but the pin tells one map from the other.
        fake.maps = [poisoned]
        queries = len(fake.queries)
        with pytest.raises(NoMapError, match=f"no longer serves map {learned.id}"):
            client.describe(refresh=True)
        fake.maps.insert(0, replace(poisoned, weight=-poisoned.weight))
        client.describe(refresh=True)  # beside the pinned one it changes nothing, though it is newer
        assert [result.label for result in client.classify(QUERIES)] == [result.label for result in before]
        assert len(fake.queries) > queries

    def test_without_the_pin_the_poisoned_map_would_be_used(
        self, address: Address, client: Client, fake: FakeSilo, encoder: ViewEncoder, tmp_path: Path
    ) -> None:
        client.align(PUBLIC)
        before = [result.label for result in client.classify(QUERIES)]
        fake.maps = [replace(fake.maps[-1], weight=-fake.maps[-1].weight)]
        with Client(**address.settings(map_directory=tmp_path / "no pins"), encoder=encoder) as other:
            after = [result.label for result in other.classify(QUERIES)]
        assert np.mean(np.array(before) == np.array(after)) < 0.5

    @pytest.mark.parametrize("field", ["encoder", "public_set", "rows"])
    def test_a_card_of_another_alignment_is_not_pinned(
        self, client: Client, fake: FakeSilo, field: str, tmp_path: Path
    ) -> None:
        def other(reply: Any) -> Any:
            setattr(reply.map, field, 7 if field == "rows" else "f" * 64)
            return reply

        fake.tamper = on("Align", other)
        with pytest.raises(InvalidInputError, match="not pinned"):
            client.align(PUBLIC)
        assert not list((tmp_path / "maps").glob("*.json"))


class TestHugePlans:
    """Plans under which a client would build gigabytes."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"block_inner": 1, "rows": 1 << 24},
            {"dimension": 1 << 24},
            {"outputs": 1 << 24},
            {"rows": 0},
            {"precision": float("nan")},
        ],
    )
    def test_refused_before_anything_is_encrypted(self, client: Client, fake: FakeSilo, fields: dict[str, Any]) -> None:
        client.align(PUBLIC)

        def huge(reply: Any) -> Any:
            for plan in reply.tasks[0].plans:
                for name, value in fields.items():
                    setattr(plan, name, value)
                plan.id = _renamed(plan)
            return reply

        fake.tamper = on("DescribeTasks", huge)
        with pytest.raises(SealignError):
            client.classify(QUERIES[:2])
        assert not fake.queries


class TestOneBadCard:
    """A card among others that no client can use."""

    def test_the_others_are_listed_and_it_is_named(self, client: Client, fake: FakeSilo) -> None:
        client.align(PUBLIC)

        def with_another(reply: Any) -> Any:
            other = reply.tasks.add()
            other.CopyFrom(reply.tasks[0])
            other.name = "weak"
            other.plans[0].parameter_set = "ckks-1024-27"
            return reply

        fake.faulty, fake.tamper = (), on("DescribeTasks", with_another)
        with pytest.warns(UserWarning, match="Task 'weak' of the silo cannot be used here"):
            tasks = client.describe(refresh=True).tasks
        assert [task.name for task in tasks] == ["colours"]
        assert len(client.classify(QUERIES[:2], task="colours")) == 2
        queries = len(fake.queries)
        with pytest.raises(InsecureParametersError, match="ckks-1024-27"):
            client.classify(QUERIES[:2], task="weak")
        assert len(fake.queries) == queries


def _renamed(message: Any) -> str:
    """The id that such a plan would have, if a plan of these fields can be made."""
    try:
        plan: PackingPlan = replace(wire.plan_from_wire(message, TABLE))
    except SealignError:
        return str(message.id)
    return plan.id


class TestEscapeCodes:
    """Labels that would write to a terminal what the silo wants."""

    def test_labels_and_names_are_escaped(
        self,
        address: Address,
        fake: FakeSilo,
        encoder: ViewEncoder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def escape(reply: Any) -> Any:
            reply.tasks[0].labels[:] = [ESCAPE + str(number) for number in range(3)]
            reply.tasks[0].description = ESCAPE
            return reply

        fake.tamper = on("DescribeTasks", escape)
        settings = address.settings(map_directory=tmp_path / "maps")
        with Client(**settings, encoder=encoder) as client:
            client.align(PUBLIC)
            assert client.classify(QUERIES[0]).label.startswith(ESCAPE)  # the SDK gives what was sent
        monkeypatch.setattr("sealign_client.classification_tasks.load_encoder", lambda _: encoder)
        options = ["--encoder", "use", *(f"--{k.replace('_', '-')}={v}" for k, v in settings.items())]
        for command in (["classify", QUERIES[0]], ["classify", "--json", QUERIES[0]], ["tasks"]):
            monkeypatch.setattr("sys.argv", ["sealign", *command, *options])
            with pytest.raises(SystemExit) as ended:
                main()
            out, err = capsys.readouterr()
            assert not ended.value.code, err
            assert "owned" in out
            assert "\x1b" not in out + err
            assert "\x07" not in out + err


class TestFailureOracle:
    """Crafted replies leave the range or not, by one coefficient of the key: a visible failure would tell it."""

    @staticmethod
    def crafted(reply: Any, byte: bytes = b"\x5a") -> Any:
        """The reply, with a mask and outputs of the silo's choice: what decrypts then depends on the key."""
        for ciphertext in reply.logits.ciphertexts:
            ciphertext.mask = byte * len(ciphertext.mask)
            ciphertext.outputs = b"\xa5" * len(ciphertext.outputs)
        reply.logits.digest = _digest(reply.logits)
        return reply

    def test_the_ingredients_tell_a_crafted_reply_by_failing(self) -> None:
        """Without the client's care, decrypting raises at once: the oracle."""
        weight = np.full((24, 3), 0.1)
        plan = plan_product(product_shape(weight, np.zeros(3), rows=1))
        cipher = Cipher(plan, SecretKey.generate(plan.parameters))
        query = cipher.encrypt(np.eye(1, 24))
        reply = Evaluator(plan, weight, np.zeros(3)).evaluate(query, ZeroPool(cipher.key.public_key))
        other = Cipher(plan, SecretKey.generate(plan.parameters))
        foreign = replace(reply, key_id=other.key.public_key.id)
        with pytest.raises(DecryptionError):
            other.decrypt(foreign, 1)

    def test_one_failure_ends_the_key_and_invites_no_retry(self, client: Client, fake: FakeSilo) -> None:
        client.align(PUBLIC)
        client.classify(QUERIES[0])
        caught, before = None, 0
        for byte in range(0x5A, 0x62):  # three in a hundred stay within the range by chance
            fake.tamper = on("Classify", partial(self.crafted, byte=bytes([byte])))
            before = len(fake.queries)
            try:
                client.classify(QUERIES[0])
            except DecryptionError as error:
                caught = error
                break
        assert caught is not None
        assert not isinstance(caught, RETRIED)
        assert caught.retry_after is None
        assert len(fake.queries) == before + 1  # it was not asked again
        failed = fake.queries[-1]
        fake.tamper = lambda _, reply: reply
        client.classify(QUERIES[0])
        assert fake.queries[-1] != failed

    @pytest.mark.parametrize("bad", [0, 1, 2])
    def test_a_stream_is_drained_as_if_nothing_had_happened(self, client: Client, fake: FakeSilo, bad: int) -> None:
        client.align(PUBLIC)
        rows = client.encoder.encode(QUERIES + [f"more {number}" for number in range(100)])
        honest = len(client.logits(rows, verify=False))
        (good,) = fake.drained
        replies = 0

        def tampered(reply: Any) -> Any:
            nonlocal replies
            replies += 1
            return self.crafted(reply) if replies == bad + 1 else reply

        fake.tamper = on("ClassifyStream", tampered)
        fake.queries.clear()
        with pytest.raises(DecryptionError):
            client.logits(rows, verify=False)
        assert honest == len(rows)
        assert fake.drained == [good, good]  # the silo has seen the whole stream, to its orderly end
        failed = set(fake.queries)
        assert len(failed) == 1  # all of it under one key
        fake.tamper = lambda _, reply: reply
        client.logits(rows, verify=False)
        assert failed.isdisjoint(fake.queries[good:])


class TestVerification:
    """A silo that answers with another product than that of the rows."""

    def test_a_wrong_row_in_a_verified_batch_is_noticed(self, client: Client, fake: FakeSilo) -> None:
        client.align(PUBLIC)
        rows = client.encoder.encode(QUERIES[:30])
        right = client.logits(rows, verify=True)
        (plan,) = [plan for plan in client.describe().tasks[0].plans if plan.rows > 1]
        fake.tamper = on("Classify", lambda reply: _shifted(reply, plan))
        # The ingredients: decrypted without check rows, the shifted product is within the range and passes.
        assert np.abs(client.logits(rows, verify=False) - right).max() > 0.1
        with pytest.raises(VerificationError):
            client.logits(rows, verify=True)

    def test_a_crafted_cross_covariance_makes_no_map_and_sends_nothing_back(
        self, client: Client, fake: FakeSilo, tmp_path: Path
    ) -> None:
        """What would be computed from it and registered would tell the key."""

        def crafted(reply: Any) -> Any:
            if reply.WhichOneof("part") == "product":
                for ciphertext in reply.product.product.ciphertexts:
                    words = bytearray(ciphertext.outputs)
                    words[5] ^= 0x40
                    ciphertext.outputs = bytes(words)
                reply.product.product.digest = _digest(reply.product.product)
            return reply

        fake.tamper = on("AlignEncrypted", crafted)
        with pytest.raises(DecryptionError):
            client.align(PUBLIC, mode="encrypted")
        assert not fake.registrations
        assert not list((tmp_path / "maps").glob("*.safetensors"))
        fake.tamper = lambda _, reply: reply
        client.align(PUBLIC, mode="encrypted")
        assert len(fake.registrations) == 1
        assert len(set(fake.keys)) == len(fake.keys)  # every alignment has a key of its own


class TestSharedExamples:
    """Sentences of the silo's choice, to see how the client's encoder embeds them."""

    def test_nothing_is_embedded_without_consent(
        self, client: Client, encoder: ViewEncoder, fake: FakeSilo, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidInputError, match="accept_examples"):
            client.align(PUBLIC, shared_examples="colours")
        seen: list[str] = []

        def refuse(examples: Any) -> bool:
            seen.extend(examples)
            return False

        with pytest.raises(InvalidInputError, match="accept_examples"):
            client.align(PUBLIC, shared_examples="colours", accept_examples=refuse)
        assert tuple(seen) == EXAMPLES
        assert encoder.embedded == 0
        assert "Align" not in fake.calls
        (file,) = (tmp_path / "maps").glob("shared-examples-*.txt")
        assert file.read_text().splitlines() == list(EXAMPLES)
        assert file.stat().st_mode & 0o777 == 0o600
        card = client.align(PUBLIC, shared_examples="colours", accept_examples=lambda _: True)
        assert card.rows == len(PUBLIC) + len(EXAMPLES)

    def test_more_than_128_are_refused(self, client: Client, encoder: ViewEncoder, fake: FakeSilo) -> None:
        def many(reply: Any) -> Any:
            reply.texts.extend(f"sentence {number}" for number in range(129))
            return reply

        fake.tamper = on("SharedExamples", many)
        with pytest.raises(InvalidInputError, match="128"):
            client.align(PUBLIC, shared_examples="colours", accept_examples=lambda _: True)
        assert encoder.embedded == 0


def test_an_uncalibrated_map_gives_labels_without_probabilities_and_one_warning(client: Client, fake: FakeSilo) -> None:
    fake.calibrated = False
    client.align(PUBLIC)
    with pytest.warns(UserWarning, match="without probabilities"):
        result = client.classify(QUERIES[0])
    assert (result.probability, result.probabilities, result.in_distribution) == (None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.classify(QUERIES)


def _shifted(reply: Any, plan: PackingPlan) -> Any:
    """The reply with one output moved by a half, which a silo can always do."""
    count, bits = plan.block.output_positions.size, plan.reply_bits
    words = unpack_words(reply.logits.ciphertexts[0].outputs, count, bits)
    words[3] = (words[3] + np.uint64(int(plan.output_scale / 2) >> plan.dropped_bits)) % np.uint64(1 << bits)
    reply.logits.ciphertexts[0].outputs = pack_words(words, bits)
    reply.logits.digest = _digest(reply.logits)
    return reply


def _digest(message: Any) -> bytes:
    """The digest that a product's present content should have, as a malicious silo would send it."""
    ciphertexts = tuple(ReplyCiphertext(c.outputs, c.mask) for c in message.ciphertexts)
    return EncryptedProduct(message.plan, message.key_id, ciphertexts).digest()
