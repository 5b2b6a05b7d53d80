"""Fellow clients: nothing that one uploads changes an answer, a limit or a cache of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import grpc
import numpy as np
import pytest

from sealign.alignment import MapCovariances, ScaledRows
from sealign.ckks import Cipher, SecretKey, SecurityTable
from sealign.encoders import EncoderCard
from sealign.errors import (
    BudgetExhaustedError,
    NoMapError,
    NotPermittedError,
    ReleaseRefusedError,
    UnknownKeyError,
    UnknownMapError,
    UnknownSessionError,
)
from sealign.protocol import AlignmentRequest, ClientMap, RowKind
from sealign.protocol.conversions.alignment import covariances_to_wire, offer_from_wire, request_to_wire
from sealign.protocol.conversions.types import matrix_to_wire, plan_from_wire, public_key_to_wire, rows_to_wire
from sealign.protocol.v1 import alignment_pb2 as pb
from sealign.protocol.v1 import classification_pb2, silo_pb2
from sealign_server.store import SiloStore
from tests.support.processes import Server, serving
from tests.support.silo import Tls, align_plain, space_of
from tests.support.smallsilo import CLIENT_DIMENSION, PUBLIC, SILO_DIMENSION, Rows, client_encoder, make_silo
from tests.support.wire import RawClient, Stubs, raw_stubs, refused

DENIED, PRECONDITION = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True)
class Two:
    """A silo and two clients of it, each with a certificate of its own, and the same public model."""

    server: Server
    store: SiloStore
    alice: Stubs
    bob: Stubs
    names: tuple[str, str]
    rows: Rows


@pytest.fixture(scope="module")
def card() -> EncoderCard:
    return client_encoder().card


@pytest.fixture(scope="module")
def two(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    directory = tmp_path_factory.mktemp("two")
    store = make_silo(directory / "silo", calibrated=True)
    identities = [tls.authority.issue(name, name) for name in ("alice", "bob")]
    options = (*tls.serve_options, "--max-rows-per-day", "200", "--max-maps-per-day", "8", "--max-maps", "3")
    with ExitStack() as stack:
        server = stack.enter_context(
            serving("sealign-server", "serve", store.directory, *options, log=directory / "log")
        )
        alice, bob = (
            stack.enter_context(raw_stubs(server.address, tls.authority, identity)) for identity in identities
        )
        names = (identities[0].subject, identities[1].subject)
        yield Two(server, store, alice, bob, names, client_encoder().encode(PUBLIC.texts))


def align(stubs: Stubs, card: EncoderCard, rows: Rows) -> str:
    """Plain alignment over the wire."""
    header = request_to_wire(AlignmentRequest("embeddings", card, PUBLIC.digest, len(rows)))
    parts = [pb.AlignRequest(header=header), pb.AlignRequest(rows=pb.EmbeddingRows(values=rows.tobytes()))]
    return stubs.alignment.Align(iter(parts), timeout=60).map.id


def logits(stubs: Stubs, rows: RowKind, queries: Rows) -> np.ndarray:
    raw = RawClient.meet(stubs, rows)
    return np.vstack([raw.outputs(raw.send(raw.request(query[None])))[:, :3] for query in queries])


def test_aligning_under_anothers_fingerprint_does_not_touch_its_map(two: Two, card: EncoderCard) -> None:
    """In the old silo the last to align under a fingerprint decided for everybody: 0.943 became 0.297."""
    queries = client_encoder().encode([f"query {number}" for number in range(8)])
    mine = align(two.bob, card, two.rows)
    before = logits(two.bob, RowKind(card.fingerprint, mine), queries)
    reflected = two.rows - 2 * np.outer(two.rows @ two.rows[0], two.rows[0])
    poison = align(two.alice, card, reflected.astype(np.float32))
    assert poison != mine
    space = two.bob.alignment.DescribeSpace(
        pb.DescribeSpaceRequest(space="embeddings", encoder=card.fingerprint, dimension=CLIENT_DIMENSION), timeout=30
    )
    assert poison not in [each.id for each in space.maps]
    after = logits(two.bob, RowKind(card.fingerprint, mine), queries)
    assert np.abs(after - before).max() <= 2 / 256
    # The ingredient: had Bob taken Alice's map, other labels would have come.
    poisoned = logits(two.alice, RowKind(card.fingerprint, poison), queries)
    assert np.abs(poisoned - before).max() > 0.5
    with refused(PRECONDITION, NoMapError, "align first"):
        logits(two.bob, RowKind(card.fingerprint, poison), queries)


def test_invented_encoders_do_not_use_up_anothers_release(two: Two, card: EncoderCard) -> None:
    invented = card.model_copy(update={"dimension": 1, "name": "invented"})
    asked = pb.DescribeSpaceRequest(space="embeddings", encoder=card.fingerprint, dimension=CLIENT_DIMENSION)
    (own,) = [s for s in two.bob.alignment.DescribeSpace(asked, timeout=30).public_sets if s.digest == PUBLIC.digest]
    encrypted_alignment(two.alice, invented, two.rows[:, :1], check_rows=0)
    (left,) = [s for s in two.bob.alignment.DescribeSpace(asked, timeout=30).public_sets if s.digest == PUBLIC.digest]
    assert left.releases_left == own.releases_left == 1
    with refused(DENIED, ReleaseRefusedError, "release grant"):
        encrypted_alignment(two.alice, invented, two.rows[:, :1], check_rows=0)


def encrypted_alignment(
    stubs: Stubs, card: EncoderCard, rows: Rows, *, check_rows: int, stop_at: int | None = None
) -> tuple[bytes, int]:
    """Encrypted alignment over the wire; returns its session, and how many parts came."""
    request = AlignmentRequest("embeddings", card, PUBLIC.digest, len(rows))
    header = pb.AlignEncryptedHeader(alignment=request_to_wire(request), check_rows=check_rows)
    offer = offer_from_wire(
        next(iter(stubs.alignment.AlignEncrypted(iter([pb.AlignEncryptedRequest(header=header)]), timeout=60))).offer,
        SecurityTable.CLASSICAL,
    )
    key = SecretKey.generate(offer.plan.parameters)
    header.key.CopyFrom(public_key_to_wire(key.public_key))
    header.session = offer.session
    scaled = ScaledRows.of(rows).rows
    blocks = list(Cipher(offer.plan, key).encrypt_blocks(np.vstack([scaled, np.zeros((check_rows, len(rows)))])))

    def requests() -> Iterator[pb.AlignEncryptedRequest]:
        yield pb.AlignEncryptedRequest(header=header)
        for index, block in enumerate(blocks[:stop_at]):
            yield pb.AlignEncryptedRequest(block=pb.InnerBlock(index=index, rows=matrix_to_wire(block)))
        if stop_at is None:
            yield pb.AlignEncryptedRequest(received=pb.ProductReceived())

    parts = 0
    for reply in stubs.alignment.AlignEncrypted(requests(), timeout=60):
        parts += reply.WhichOneof("part") == "product"
    return offer.session, parts


def test_a_session_of_another_is_not_found(two: Two, card: EncoderCard) -> None:
    other = card.model_copy(update={"fingerprint": "e" * 64})
    request = AlignmentRequest("embeddings", other, PUBLIC.digest, len(two.rows))
    header = pb.AlignEncryptedHeader(alignment=request_to_wire(request))

    def offered(stubs: Stubs) -> pb.AlignmentOffer:
        asked = iter([pb.AlignEncryptedRequest(header=header)])
        return next(iter(stubs.alignment.AlignEncrypted(asked, timeout=60))).offer

    plan = plan_from_wire(offered(two.alice).plan, SecurityTable.CLASSICAL)
    header.key.CopyFrom(public_key_to_wire(SecretKey.generate(plan.parameters).public_key))
    session = offered(two.alice).session
    header.session = session
    assert offered(two.bob).session != session  # begun anew, as Bob's own
    header.parts_received = 1
    with refused(PRECONDITION, UnknownSessionError, "start again"):
        offered(two.bob)
    header.parts_received = 0
    assert offered(two.alice).session == session


def test_a_key_of_another_is_unknown(two: Two) -> None:
    rows = RowKind("a" * 64, ClientMap(PUBLIC.digest))
    alice = RawClient.meet(two.alice, rows)
    query = np.eye(1, SILO_DIMENSION, dtype=np.float32)
    with refused(PRECONDITION, UnknownKeyError, "send the key"):
        alice.at(two.bob).send(alice.request(query))
    alice.send(alice.request(query))


def registered(stubs: Stubs, store: SiloStore, scale: float = 0.5) -> str:
    """Register a map that shrinks the silo's embeddings."""
    own = np.cov(store.space.load_public_set(PUBLIC.digest).rows.T, bias=True).astype(np.float32)
    message = covariances_to_wire(MapCovariances(scale * own, scale**2 * own), "embeddings", "a" * 64, PUBLIC.digest)
    return stubs.alignment.RegisterMap(message, timeout=60).registration


def test_registrations_are_their_clients_own_and_counted(two: Two) -> None:
    name = registered(two.alice, two.store)
    assert registered(two.alice, two.store) == name  # the same content is counted once
    rows = RowKind("a" * 64, ClientMap(PUBLIC.digest, name))
    asked = classification_pb2.DescribeTasksRequest(rows=rows_to_wire(rows))
    assert two.alice.classification.DescribeTasks(asked, timeout=60).tasks[0].plans
    with refused(PRECONDITION, UnknownMapError, "register it again"):
        two.bob.classification.DescribeTasks(asked, timeout=60)
    with refused(EXHAUSTED, BudgetExhaustedError, "maps and registrations"):
        for step in range(12):
            registered(two.alice, two.store, 0.4 + step / 100)
    registered(two.bob, two.store, 0.3)  # Alice's flood costs Bob nothing
    held = list((two.store.directory / "space" / "registrations").glob("*/*.safetensors"))
    assert len(held) <= 2 * 3


def test_rows_of_a_day_are_counted_for_each_client(two: Two) -> None:
    rows = RowKind("b" * 64, ClientMap(PUBLIC.digest))
    with refused(EXHAUSTED, BudgetExhaustedError, "512 rows are more than"):
        RawClient.meet(two.alice, rows, batch=1024)  # one row, and room for a block of them
    # An invented encoder is no new budget.
    single = RawClient.meet(two.alice, replace(rows, encoder="c" * 64))
    query = np.eye(1, SILO_DIMENSION, dtype=np.float32)
    with refused(EXHAUSTED, BudgetExhaustedError, "allows 200 in 24 hours"):
        for _ in range(250):
            single.send(single.request(query))
    other = RawClient.meet(two.bob, rows)
    other.send(other.request(query))


def test_each_batch_leaves_a_record(two: Two) -> None:
    raw = RawClient.meet(two.bob, RowKind("d" * 64, ClientMap(PUBLIC.digest)))
    raw.send(raw.request(np.eye(1, SILO_DIMENSION, dtype=np.float32)))
    record = [event for event in two.server.events("call") if event["method"] == "Classify"][-1]
    assert {name: record[name] for name in ("identity", "task", "rows", "code", "encoder")} == {
        "identity": two.names[1],
        "task": "colours",
        "rows": 1,
        "code": "OK",
        "encoder": "d" * 64,
    }
    refusals = [event for event in two.server.events("call") if event["code"] == "BUDGET_EXHAUSTED"]
    assert {event["identity"] for event in refusals} <= {two.names[0]}


def test_who_calls_is_said(two: Two) -> None:
    for stubs, name in zip((two.alice, two.bob), two.names, strict=True):
        described = stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=30)
        assert described.identity == name
        assert described.limits.may_align
        assert described.limits.rows_per_day == 200


@pytest.fixture(scope="module")
def anonymous(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stubs, SiloStore, Server]]:
    """A silo on loopback without a client authority, which shares examples."""
    directory = tmp_path_factory.mktemp("anonymous")
    store = make_silo(directory / "silo", calibrated=True)
    card, rows = client_encoder().card, client_encoder().encode(PUBLIC.texts)
    align_plain(space_of(store), "operator", card, PUBLIC.digest, rows)
    files = ("--tls-cert", tls.silo.certificate, "--tls-key", tls.silo.key, "--listen", "127.0.0.1:0")
    with (
        serving(
            "sealign-server", "serve", store.directory, *files, "--share-examples", log=directory / "log"
        ) as server,
        raw_stubs(server.address, tls.authority, None) as stubs,
    ):
        yield stubs, store, server


def test_anonymous_callers_query_and_nothing_else(
    anonymous: tuple[Stubs, SiloStore, Server], card: EncoderCard, two: Two
) -> None:
    stubs, store, server = anonymous
    files = {path for path in store.directory.rglob("*.*") if "ledger" not in path.name and path.parent.name != "audit"}
    with refused(DENIED, NotPermittedError, "may query and nothing else"):
        align(stubs, card, two.rows)
    with refused(DENIED, NotPermittedError, "may query and nothing else"):
        encrypted_alignment(stubs, card, two.rows, check_rows=0)
    with refused(DENIED, NotPermittedError, "may query and nothing else"):
        registered(stubs, store)
    with refused(DENIED, NotPermittedError, "may query and nothing else"):
        asked = pb.SharedExamplesRequest(space="embeddings", task="colours", public_set=PUBLIC.digest)
        stubs.alignment.SharedExamples(asked, timeout=30)
    assert {
        path for path in store.directory.rglob("*.*") if "ledger" not in path.name and path.parent.name != "audit"
    } == files
    # The operator's map serves them.
    described = stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=30)
    assert (described.identity, described.limits.may_align) == ("anonymous", False)
    space = stubs.alignment.DescribeSpace(
        pb.DescribeSpaceRequest(space="embeddings", encoder=card.fingerprint), timeout=30
    )
    (known,) = space.maps
    assert np.isfinite(logits(stubs, RowKind(card.fingerprint, known.id), two.rows[:2])).all()
    assert server.events(
        "callers are anonymous: everybody who can connect may query, and nobody may align; see --tls-client-ca"
    )
