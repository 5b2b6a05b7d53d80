"""Two replicas of a silo, one directory and one ledger on PostgreSQL, behind a balancer that gives each its turn."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr

from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import EncoderSettings
from sealign.errors import BudgetExhaustedError, ReleaseRefusedError
from sealign_client import Client, ClientSettings
from sealign_server.ledger import IdentityRegister, Ledger, Usage
from sealign_server.store import SiloStore, audit_records, verify_audit
from sealign_server.training.generation import add_public_states, keep_generation
from tests.load.application import Application, milliseconds, running, wait_for_answers
from tests.support.balancer import Balancer
from tests.support.generation import TASK, ClearGenerator, chosen_otherwise, loaded, model_name, public_set
from tests.support.postgresql import PostgreSQL
from tests.support.processes import Server, command, serving
from tests.support.silo import Tls
from tests.support.smallsilo import PUBLIC, client_encoder, make_silo
from tests.support.wire import Embeddings

IDENTITIES = ("acme", "other", "poet", "few", "busy")
POLICY = """
default = "free"
[tiers.free]
tasks = ["*"]
generation_tasks = ["*"]
align = ["plain", "encrypted"]
register_maps = true
unlimited = true
[tiers.small]
tasks = ["*"]
align = ["plain"]
rows_lifetime = 60
[identities]
few = "small"
"""


@dataclass
class Replicas:
    """Replicas, each on a port that it keeps, and what is before and behind them."""

    directory: Path
    url: str
    tls: Tls
    stack: ExitStack
    logs: Path
    tokens: dict[str, str] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)

    def start(self, number: int) -> None:
        """Start a replica, or start it again."""
        port = self.ports[number] if number < len(self.ports) else 0
        tls = ("--tls-cert", self.tls.silo.certificate, "--tls-key", self.tls.silo.key, "--tokens")
        options = (*tls, "--listen", f"127.0.0.1:{port}", "--log-level", "debug")
        log = self.logs / f"{number}-{time.monotonic_ns()}.log"
        started = serving("sealign-server", "serve", self.directory, *options, log=log, SEALIGN_SILO_LEDGER=self.url)
        server = self.stack.enter_context(started)
        self.servers[number : number + 1] = [server]
        self.ports[number : number + 1] = [server.port]

    def command(self, *arguments: object) -> str:
        """What a command of the operator's prints."""
        ran = command("sealign-server", *arguments, SEALIGN_SILO_LEDGER=self.url)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def codes(self, method: str) -> Counter[str]:
        """How calls of a method have ended at the replicas that run."""
        return Counter(e["code"] for server in self.servers for e in server.events("call") if e["method"] == method)


@pytest.fixture(scope="module")
def both(
    database: PostgreSQL, tls: Tls, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Replicas, Balancer]]:
    scratch = tmp_path_factory.mktemp("replicas")
    store = make_silo(scratch / "silo", calibrated=True)
    model = keep_generation(store, TASK, EncoderSettings.parse(model_name("two")), "film reviews")
    add_public_states(store.generation.space(TASK), model, "openings", public_set(), lambda _: None)
    (scratch / "silo" / "policy.toml").write_text(POLICY)
    with ExitStack() as stack:
        replicas = Replicas(scratch / "silo", database.fresh(), tls, stack, scratch)
        register = IdentityRegister(Ledger(Path("none"), replicas.url))
        for identity in IDENTITIES:
            register.add(identity)
            replicas.tokens[identity] = register.issue(identity, 3600)[1]
        for number in range(2):
            replicas.start(number)
        yield replicas, stack.enter_context(Balancer(replicas.ports, tls.authority, tls.silo))


def client_of(replicas: Replicas, balancer: Balancer, identity: str, maps: Path, **fields: object) -> Client:
    settings = ClientSettings(
        silo=f"localhost:{balancer.port}",
        tls_ca=replicas.tls.authority.certificate,
        silo_token=SecretStr(replicas.tokens[identity]),
        map_directory=maps,
        **fields,  # type: ignore[arg-type]
    )
    return Client(settings, encoder=None if "model" in fields else client_encoder())


def clear_logits(replicas: Replicas, identity: str, rows: Embeddings) -> NDArray[np.float64]:
    """What the newest map and its head give in the clear."""
    from sealign_server.serving.served_tasks import LoadedTask
    from sealign_server.settings import ServingOptions

    store = SiloStore(replicas.directory)
    record = store.space.map_records(client_encoder().card.fingerprint, identity)[0]
    learned = store.space.load_map(identity, record.card.id)
    head = LoadedTask.load("colours", "", store.tasks.load("colours")).behind(learned.channel, ServingOptions()).head
    return np.asarray(head.head.logits(learned.apply(rows)), dtype=np.float64)


def test_every_kind_of_call_is_answered_by_whichever_replica_it_reaches(
    both: tuple[Replicas, Balancer], tmp_path: Path
) -> None:
    replicas, balancer = both
    rows = client_encoder().encode([f"text {number}" for number in range(2100)])
    with client_of(replicas, balancer, "acme", tmp_path / "maps") as client:
        client.align(PUBLIC)
        clear = clear_logits(replicas, "acme", rows)
        for number in range(12):
            assert np.abs(client.logits(rows[number : number + 1]) - clear[number]).max() <= DEFAULT_PRECISION
        answers = Counter(port for method, port in balancer.calls if method == "Classify")
        assert set(answers) == set(replicas.ports)
        assert min(answers.values()) >= 5
        # One refusal tells the client that there are several: from then on each of them gets the key.
        assert replicas.codes("Classify") == {"OK": 12, "UNKNOWN_KEY": 1}
        assert np.abs(client.logits(rows) - clear).max() <= DEFAULT_PRECISION
        assert replicas.codes("ClassifyStream") == {"OK": 1}
    with client_of(replicas, balancer, "other", tmp_path / "others") as client:
        client.align(PUBLIC, mode="encrypted")
        assert np.isfinite(client.logits(rows[:3])).all()
        with pytest.raises(ReleaseRefusedError):
            client.align(PUBLIC, mode="encrypted")
        listed = json.loads(replicas.command("release", "list", replicas.directory, "--json"))
        (number,) = (release["number"] for release in listed if release["identity"] == "other")
        replicas.command("release", "grant", replicas.directory, number)
        client.align(PUBLIC, mode="encrypted")
    methods = {method for method, _ in balancer.calls}
    assert {"Align", "AlignEncrypted", "RegisterMap", "Classify", "ClassifyStream", "DescribeTasks"} <= methods
    grants = [record for record in audit_records(SiloStore(replicas.directory).audit_path) if record.kind == "grant"]
    assert [(grant.identity, grant.facts["release"]) for grant in grants] == [("other", number)]


def test_a_text_is_written_by_both(both: tuple[Replicas, Balancer], tmp_path: Path) -> None:
    replicas, balancer = both
    with client_of(replicas, balancer, "poet", tmp_path / "maps", model=model_name("one")) as client:
        client.align(public_set(), space=f"generation/{TASK}")
        tokens = list(client.generate("The film was", max_tokens=16))
    assert len(tokens) == 16
    clear = ClearGenerator.load(replicas.directory, loaded("one"))
    assert chosen_otherwise(clear, "The film was", tokens) < len(tokens)  # others only where logits are as large
    assert Counter(port for method, port in balancer.calls if method == "NextToken").keys() == set(replicas.ports)
    assert not [event for server in replicas.servers for event in server.events("internal error")]


def test_budgets_hold_over_both_and_their_deaths(both: tuple[Replicas, Balancer], tmp_path: Path) -> None:
    replicas, balancer = both
    row = client_encoder().encode(["a text"])
    answered = 0
    with client_of(replicas, balancer, "few", tmp_path / "maps", timeout=60) as client:
        client.align(PUBLIC)
        with pytest.raises(BudgetExhaustedError):  # noqa: PT012 - each of these may be the first that is refused
            while True:
                client.logits(row)
                answered += 1
                if answered == 20:
                    for number, server in enumerate(replicas.servers):
                        server.end(signal.SIGKILL)
                        replicas.start(number)
    ledger = Ledger(Path("none"), replicas.url)
    (spent,) = (spent for spent in Usage(ledger).spent() if spent.identity == "few")
    assert 30 <= answered <= spent.lifetime <= 60  # a killed replica has at most an eighth of what was left
    ledger.close()


def test_an_application_notices_neither_death_nor_restart(
    both: tuple[Replicas, Balancer], database: PostgreSQL, tmp_path: Path
) -> None:
    replicas, balancer = both
    encoder = client_encoder()
    leftover = replicas.directory / "space" / ".map.0123456789ab.tmp"
    with ExitStack() as stack:
        clients = [
            stack.enter_context(client_of(replicas, balancer, "busy", tmp_path / "maps", timeout=60)) for _ in range(2)
        ]
        clients[0].align(PUBLIC)
        rows = encoder.encode([f"busy {number}" for number in range(2)])
        clear = clear_logits(replicas, "busy", rows)
        applications = [
            Application(client, rows[n : n + 1], partial(_is_near, clear[n : n + 1]))
            for n, client in enumerate(clients)
        ]
        stack.enter_context(running(applications))
        flows = partial(wait_for_answers, applications, 5)
        flows()
        replicas.servers[0].end(signal.SIGKILL)
        flows()
        leftover.write_bytes(b"another replica is writing this")
        replicas.start(0)
        assert leftover.exists()
        leftover.unlink()
        flows()
        database.stop()  # what is counted ahead is spent meanwhile, and what is not is asked for again
        time.sleep(1.0)
        database.start()
        flows()
        for number in range(2):  # a rolling restart
            assert replicas.servers[number].end(signal.SIGTERM) == 0
            flows()
            replicas.start(number)
            flows()
    assert not [fault for application in applications for fault in application.faults]
    calls, p99, longest = (
        sum(len(application.seconds) for application in applications),
        milliseconds(applications, 0.99),
        milliseconds(applications, 1.0),
    )
    print(
        f"{calls} calls through a kill and a rolling restart: none failed, p99 {p99:.0f} ms, longest {longest:.0f} ms"
    )
    assert not [event for server in replicas.servers for event in server.events("internal error")]
    store = SiloStore(replicas.directory)
    assert verify_audit(store.audit_path, store.signing.known()).torn == 0


def _is_near(clear: NDArray[np.float64], logits: NDArray[np.float64]) -> bool:
    return bool(np.abs(logits - clear).max() <= DEFAULT_PRECISION)
