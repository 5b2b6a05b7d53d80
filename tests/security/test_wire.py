"""Nothing but the agreed fields crosses the wire: a recording of both sides' plain bytes holds no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from sealign.ckks.serialization import pack_words, save_secret_key
from sealign.encoders import Encoder
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2
from sealign_client import Client
from tests.support.corpus import Corpus
from tests.support.processes import Server
from tests.support.silo import Tls
from tests.support.tap import Call, Tap, tapping

TEXTS = [
    "zygomorphic petunias overran the cathedral of Quetzaltenango on Whitsunday",
    "Vercingetorix Smith-Jones, born 29/02/1972, owes the apothecary 48151.62 drachmae",
]
TIME = re.compile(r'"timestamp": "[^"]+"')
"""In log lines; 10:00:00.106132Z is no logit of 0.106."""
AGREED_HEADERS = {
    *(":method", ":scheme", ":path", ":authority", ":status"),
    *("te", "content-type", "user-agent", "grpc-accept-encoding", "accept-encoding", "grpc-timeout"),
    *("grpc-status", "grpc-message"),
}


@dataclass(frozen=True)
class Recording:
    """A client's whole life at a silo, as seen from the wire, and what only the client knows."""

    tap: Tap
    plaintext: bytes
    calls: list[Call]
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float64]
    secret_keys: list[bytes]
    modulus_bits: int


@pytest.fixture(scope="module")
def recording(silo: Server, tls: Tls, encoder: Encoder, corpus: Corpus, client: Client) -> Recording:
    """Describe, align, classify one text, classify a bulk of rows."""
    with (
        tapping(silo.address, tls.authority, tls.silo, tls.client) as tap,
        Client(tls.client_settings(tap.port), encoder=encoder) as own,
    ):
        own.align(corpus.public)
        results = [result for text in TEXTS for result in own.classify([text])]
        embeddings = encoder.encode(TEXTS)
        bulk = own.logits(np.tile(embeddings, (550, 1)))
        keys = list(own._client.session.keys._keys.values())
    logits = np.vstack([[result.logits for result in results], bulk])
    secrets = [save_secret_key(key._key) for key in keys]
    return Recording(tap, tap.plaintext, tap.calls, embeddings, logits, secrets, keys[0].parameters.modulus_bits)


def words(text: str) -> set[str]:
    """Tokens of a text that are long enough not to occur by chance."""
    return {word for word in re.findall(r"[A-Za-z0-9./]+", text) if len(word) >= 5}


def windows(content: bytes, step: int) -> Iterator[bytes]:
    """All 16-byte windows at multiples of ``step``."""
    return (content[at : at + 16] for at in range(0, len(content) - 15, step))


def found(secrets: Iterator[bytes], where: bytes) -> int:
    return sum(secret in where for secret in secrets)


def test_the_recording_is_one(recording: Recording, encoder: Encoder, corpus: Corpus) -> None:
    """It reads what plain alignment sends by agreement, so it would read a leak."""
    methods = [call.method for call in recording.calls]
    assert set(methods) == {"Describe", "DescribeSpace", "DescribeTasks", "Align", "Classify", "ClassifyStream"}
    assert len(recording.plaintext) > 1_000_000
    public = encoder.encode(corpus.public.texts[:3])
    assert all(window in recording.plaintext for row in public for window in windows(row.tobytes(), 64))
    assert corpus.public.digest.encode() in recording.plaintext


def test_no_text_and_no_token_of_one(recording: Recording, corpus: Corpus) -> None:
    for text in TEXTS:
        for token in {text, *words(text)}:
            for form in (token, token.lower()):
                assert form.encode() not in recording.plaintext
                assert form.encode("utf-16-le") not in recording.plaintext
    # Public texts are named by their digest only.
    assert not [text for text in corpus.public.texts if text.encode() in recording.plaintext]


@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f4", ">f8", "<f2"])
def test_no_embedding(recording: Recording, kind: str) -> None:
    for row in recording.embeddings:
        assert found(windows(row.astype(kind).tobytes(), np.dtype(kind).itemsize), recording.plaintext) == 0


def test_no_secret_key(recording: Recording) -> None:
    assert recording.secret_keys
    for body in recording.secret_keys:
        assert len(body) > 16_000
        assert found(windows(body, 16), recording.plaintext) == 0
        words = np.frombuffer(body[-8 * (len(body) // 8) :], "<u8")[-2048:]
        assert found(windows(pack_words(words, recording.modulus_bits), 8), recording.plaintext) == 0


def test_no_logits(recording: Recording) -> None:
    for row in recording.logits[:4]:
        for kind in ("<f4", "<f8"):
            assert found(windows(row.astype(kind).tobytes(), np.dtype(kind).itemsize), recording.plaintext) == 0


def test_exactly_the_fields_of_the_contract(recording: Recording) -> None:
    services = [
        service
        for module in (silo_pb2, alignment_pb2, classification_pb2, generation_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    methods = {name: method for service in services for name, method in service.methods_by_name.items()}
    for call in recording.calls:
        assert call.requests
        kinds = methods[call.method].input_type, methods[call.method].output_type
        for kind, contents in zip(kinds, (call.requests, call.replies), strict=True):
            for content in contents:
                message = GetMessageClass(kind).FromString(content)
                assert_known(message)
                assert len(message.SerializeToString()) == len(content)


def assert_known(message: Message) -> None:
    """No field that the contract does not name, at any depth."""
    assert not len(UnknownFieldSet(message))
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in value if descriptor.is_repeated else [value]:
                assert_known(part)


def test_exactly_the_agreed_headers(recording: Recording) -> None:
    for call in recording.calls:
        assert set(call.request_headers) | set(call.reply_headers) <= AGREED_HEADERS
        assert call.reply_headers["grpc-status"] == "0"
        assert "grpc-message" not in call.reply_headers or not call.reply_headers["grpc-message"]


def test_every_query_is_new(recording: Recording) -> None:
    """Two encryptions of one text share nothing that tells so."""
    seen: set[bytes] = set()
    for call in recording.calls:
        if call.method == "ClassifyStream":
            for content in call.requests:
                request = classification_pb2.ClassifyRequest.FromString(content)
                for ciphertext in request.query.ciphertexts:
                    assert not {ciphertext.seed, ciphertext.words} & seen
                    seen |= {ciphertext.seed, ciphertext.words}
    assert len(seen) > 2


def test_logs_hold_none_of_it(
    recording: Recording,
    silo: Server,
    tls: Tls,
    encoder: Encoder,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Client(tls.client_settings(silo.port), encoder=encoder) as own:
        own.classify(TEXTS)
    captured = capfd.readouterr()
    assert TIME.search(silo.log)
    for log in (TIME.sub("", silo.log), captured.out, captured.err):
        assert not [token for text in TEXTS for token in words(text) if token in log]
        numbers = [f"{value:.3f}" for value in (*recording.logits[0], *recording.embeddings[0]) if abs(value) > 0.1]
        assert not [number for number in numbers if number in log]


def test_the_silos_directory_holds_none_of_it(recording: Recording, silo_directory: Path, corpus: Corpus) -> None:
    for path in silo_directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [token for text in TEXTS for token in words(text) if token.encode() in content], path.name
            assert not [item for item in (*corpus.train, *corpus.queries) if item.text.encode() in content], path.name
            for row in recording.embeddings:
                for kind in ("<f4", "<f8"):
                    assert found(windows(row.astype(kind).tobytes(), 16), content) == 0, path.name
            for body in recording.secret_keys:
                assert found(windows(body, 256), content) == 0, path.name
