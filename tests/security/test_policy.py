"""A policy in force at a real silo: what a tier does not allow is refused, and budgets outlive every process."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from sealign.ckks import DEFAULT_PRECISION
from sealign.errors import NotPermittedError, RateLimitedError, UnavailableError
from sealign.protocol import RowKind
from sealign.protocol.status import error_of
from sealign.protocol.v1 import alignment_pb2, classification_pb2, generation_pb2, silo_pb2
from sealign_server.cli import app
from sealign_server.ledger import Ledger, Usage
from sealign_server.store import SiloStore, audit_records
from tests.support.certificates import Identity
from tests.support.processes import Server, serving
from tests.support.silo import ClearModel, Tls, align_plain, space_of
from tests.support.smallsilo import PUBLIC, client_encoder, few_texts, make_silo
from tests.support.wire import RawClient, Stubs, raw_stubs, refused

DENIED, EXHAUSTED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED
LIFETIME = 160
AHEAD = 2 * (LIFETIME // 8)
"""Rows that two killed workers may have counted ahead, at most."""

POLICY = """
[tiers.clinic]
tasks = ["colours"]
align = ["plain"]
public_sets = ["{digest}"]
max_rows = 1
rows_lifetime = {lifetime}

[identities]
'{identity}' = "clinic"
"""


@pytest.fixture(scope="module")
def store(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> SiloStore:
    encoder = client_encoder()
    store = make_silo(tmp_path_factory.mktemp("policy") / "silo")
    align_plain(space_of(store), tls.client.subject, encoder.card, PUBLIC.digest, encoder.encode(PUBLIC.texts))
    write(store, tls, LIFETIME)
    return store


def write(store: SiloStore, tls: Tls, lifetime: int, text: str = POLICY) -> None:
    values = {"digest": PUBLIC.digest[:12], "lifetime": lifetime, "identity": tls.client.subject}
    store.policy_path.write_text(text.format(**values))


@contextmanager
def served(store: SiloStore, tls: Tls, log: Path) -> Iterator[Server]:
    options = (*tls.serve_options, "--workers", 2, "--share-examples")
    with serving("sealign-server", "serve", store.directory, *options, log=log, workers=2) as silo:
        yield silo


@contextmanager
def asking(silo: Server, tls: Tls, identity: Identity) -> Iterator[Stubs]:
    with raw_stubs(silo.address, tls.authority, identity) as stubs:
        yield stubs


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def spent(stubs: Stubs, rows: RowKind, most: int) -> int:
    """Query until the silo refuses, at most so often; returns how often it answered."""
    try:
        raw = RawClient.meet(stubs, rows)
    except grpc.RpcError:
        return 0
    request = raw.request(client_encoder().encode(PUBLIC.texts[:1]))
    for number in range(1, most):
        if stubs.classification.Classify.future(request, timeout=60).code() != grpc.StatusCode.OK:
            return number
    return most


def test_a_policy_in_force(store: SiloStore, tls: Tls, tmp_path: Path) -> None:
    clear = ClearModel.load(store.directory, tls.client, client_encoder().card.fingerprint, "colours")
    stranger = tls.authority.issue("stranger", "stranger")
    card, few = client_encoder().card, few_texts()
    with served(store, tls, tmp_path / "log") as silo:
        with asking(silo, tls, stranger) as stubs, refused(DENIED, NotPermittedError, "no tier for this identity"):
            stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=60)
        with asking(silo, tls, tls.client) as stubs:
            described = stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=60)
            assert list(described.tasks) == ["colours"]
            assert (described.limits.rows_per_request, described.limits.may_align) == (1, True)
            one = classification_pb2.DescribeTasksRequest(task="topics")
            space = alignment_pb2.AlignmentHeader(space="embeddings", public_set=few.digest, rows=len(few))
            space.encoder.dimension = card.dimension
            for ask, deed in (
                (lambda: stubs.alignment.Align(iter([alignment_pb2.AlignRequest(header=space)])), "align over public"),
                (lambda: next(stubs.alignment.AlignEncrypted(iter([]))), "align in mode encrypted"),
                (lambda: stubs.alignment.RegisterMap(alignment_pb2.RegisterMapRequest()), "register maps"),
                (lambda: stubs.classification.DescribeTasks(one), "use task 'topics'"),
                (lambda: stubs.alignment.SharedExamples(alignment_pb2.SharedExamplesRequest()), "read shared examples"),
                (
                    lambda: stubs.generation.DescribeGeneration(generation_pb2.DescribeGenerationRequest(task="x")),
                    "use generation task 'x'",
                ),
            ):
                with refused(DENIED, NotPermittedError, f"this identity may not {deed}"):
                    ask()
            # A file that is wrong changes nothing; one that is right holds within a second, without a failed call.
            write(store, tls, LIFETIME, POLICY.replace("rows_lifetime", "rows_per_life"))
            silo.wait_for("the new policy cannot be used; the earlier one stays", 2)
            assert spent(stubs, clear.rows, 3) == 3
            write(store, tls, LIFETIME, POLICY.replace('["colours"]', "[]"))
            silo.wait_for("policy reloaded", 2)
            assert not stubs.silo.Describe(silo_pb2.DescribeRequest(), timeout=60).tasks
            write(store, tls, LIFETIME)
            assert CliRunner().invoke(app, ["reload", str(store.directory)]).exit_code == 0
            silo.wait_for("policy reloaded", 4)
            silo.wait_for("reloaded", 2)
            assert spent(stubs, clear.rows, 3) == 3
    gone = CliRunner().invoke(app, ["reload", str(store.directory)])
    assert isinstance(gone.exception, UnavailableError)
    kinds = [record.kind for record in audit_records(store.audit_path)]
    assert kinds.count("policy") == 6  # two workers, three policies
    (used,) = Usage(Ledger(store.ledger_path)).spent()
    assert used.lifetime == 6  # the workers gave back what they had counted ahead


def test_a_tier_has_coarser_replies_at_a_rate_of_its_own(tls: Tls, tmp_path: Path) -> None:
    encoder, stranger = client_encoder(), tls.authority.issue("coarse", "coarse")
    own = make_silo(tmp_path / "silo")
    rows = encoder.encode(PUBLIC.texts)
    for identity in (tls.client, stranger):
        align_plain(space_of(own), identity.subject, encoder.card, PUBLIC.digest, rows)
    own.policy_path.write_text(
        "default = 'fine'\n[tiers.fine]\ntasks = ['*']\nunlimited = true\n"
        "[tiers.coarse]\ntasks = ['*']\nunlimited = true\nprecision = 0.025\nrate = 0.01\nburst = 8\n"
        f"[identities]\n'{stranger.subject}' = 'coarse'\n"
    )
    plans = []
    with serving("sealign-server", "serve", own.directory, *tls.serve_options, log=tmp_path / "log") as silo:
        for identity, precision in ((tls.client, DEFAULT_PRECISION), (stranger, 0.025)):
            clear = ClearModel.load(own.directory, identity, encoder.card.fingerprint, "colours")
            with asking(silo, tls, identity) as stubs:
                raw = RawClient.meet(stubs, clear.rows)
                assert raw.plan.precision == precision
                plans.append(raw.plan)
                for _ in range(4):  # a description and a query went before
                    outputs = raw.outputs(raw.send(raw.request(rows[:1])))
                    assert np.abs(outputs - clear.outputs(rows[:1])).max() <= precision
                if identity is stranger:
                    for _ in range(2):
                        raw.send(raw.request(rows[:1]))
                    late = raw.stubs.classification.Classify.future(raw.request(rows[:1]), timeout=60)
                    error = error_of(late, "the silo") if late.code() is EXHAUSTED else None
                    assert isinstance(error, RateLimitedError)
                    assert error.retry_after is not None
                    assert 0 < error.retry_after <= 100
    assert plans[1].reply_bits < plans[0].reply_bits
    assert not silo.events("internal error")


def test_a_lifetime_is_never_granted_twice_whatever_is_killed(store: SiloStore, tls: Tls, tmp_path: Path) -> None:
    clear = ClearModel.load(store.directory, tls.client, client_encoder().card.fingerprint, "colours")
    answered = sum(spent.lifetime for spent in Usage(Ledger(store.ledger_path)).spent())  # by the test before
    with served(store, tls, tmp_path / "first") as silo:
        with asking(silo, tls, tls.client) as stubs:
            answered += spent(stubs, clear.rows, 20)
        for event in silo.events("serving"):
            os.kill(event["pid"], signal.SIGKILL)
        silo.process.kill()
    with served(store, tls, tmp_path / "second") as silo:
        for _ in range(20):
            with asking(silo, tls, tls.client) as stubs:
                answered += (now := spent(stubs, clear.rows, LIFETIME))
            if not now:
                break
    assert LIFETIME - AHEAD <= answered <= LIFETIME
    log = (tmp_path / "second").read_text()
    assert not re.search(r'"code": ?"(INTERNAL|MACHINE|STORAGE)', log)
