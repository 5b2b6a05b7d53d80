"""A client's session: keys travel when they must, timeouts hold, misuse is one clear error at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from sealign.errors import MachineError, NoPlanError, OverloadedError, UnavailableError
from sealign_client import AsyncClient, Client, session
from tests.support.certificates import Authority
from tests.support.fakesilo import Address, BareStatusError, FakeSilo, serving_fake, silo_files
from tests.support.views import PUBLIC, client_encoder

QUERIES = [f"query {number}" for number in range(5)]


@pytest.fixture
def client(address: Address, tmp_path: Path) -> Any:
    with Client(**address.settings(map_directory=tmp_path / "maps", timeout=15.0), encoder=client_encoder()) as client:
        yield client


def test_a_key_travels_once_and_again_when_the_silo_has_forgotten_it(client: Client, fake: FakeSilo) -> None:
    client.align(PUBLIC)
    for query in QUERIES:
        client.classify(query)
    assert len(fake.keys) == 1
    assert len(fake.queries) == len(QUERIES)
    fake.forget_keys()  # as a restart does
    before = fake.calls.count("Classify")
    client.classify(QUERIES[0])
    assert fake.calls.count("Classify") == before + 2  # refused, and at once sent again with the key
    assert fake.keys == [fake.keys[0]] * 2


def test_a_restart_shows_nothing_to_the_caller(tmp_path: Path) -> None:
    fake, files = FakeSilo(), silo_files(tmp_path)
    with serving_fake(fake, *files) as first:
        client = Client(**first.settings(map_directory=tmp_path / "maps"), encoder=client_encoder())
        client.align(PUBLIC)
        before = client.classify(QUERIES)
    fake.forget_keys()
    with serving_fake(fake, *files, port=first.port):
        assert [r.label for r in client.classify(QUERIES)] == [r.label for r in before]
        client.close()


def test_a_head_that_is_being_fitted_is_waited_for_and_nothing_else(
    client: Client, fake: FakeSilo, address: Address, tmp_path: Path
) -> None:
    client.align(PUBLIC)
    fake.described.clear()
    fake.preparing = 2
    assert len(client.classify(QUERIES)) == len(QUERIES)
    assert fake.described == ["", "colours", "colours"]
    fake.preparing = 1_000_000
    settings = address.settings(map_directory=tmp_path / "maps", timeout=1.5)
    with Client(**settings, encoder=client_encoder()) as hurried:
        assert hurried.describe().tasks[0].preparing
        with pytest.raises(OverloadedError, match="still preparing task 'colours' for this client's map"):
            hurried.classify(QUERIES)


def test_a_task_that_nobody_can_use_needs_no_alignment(client: Client, fake: FakeSilo) -> None:
    fake.faulty = ("broken",)
    for aligned in (False, True):
        if aligned:
            client.align(PUBLIC)
        with pytest.raises(NoPlanError, match="serve task 'broken' to nobody at present"):
            client.classify(QUERIES, task="broken")
    assert len(client.classify(QUERIES, task="colours")) == len(QUERIES)


def test_an_overloaded_silo_is_asked_again_when_it_says(client: Client, fake: FakeSilo) -> None:
    client.align(PUBLIC)
    refusals = iter([True, True])

    def busy(method: str, reply: Any) -> Any:
        if method == "Classify" and next(refusals, False):
            raise OverloadedError("later", retry_after=0.2)
        return reply

    fake.tamper = busy
    started = time.monotonic()
    client.classify(QUERIES[0])
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_a_refusal_of_grpcs_core_says_nothing_and_is_waited_out(
    client: Client, fake: FakeSilo, code: grpc.StatusCode
) -> None:
    client.align(PUBLIC)
    came: list[float] = []

    def full(method: str, reply: Any) -> Any:
        came.append(time.monotonic())
        if method == "Classify" and len(came) < 5:
            raise BareStatusError(code)
        return reply

    client.describe()
    fake.tamper = full
    client.classify(QUERIES[0])
    pauses = [later - sooner for sooner, later in itertools.pairwise(came)]
    assert len(pauses) == 4
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))


@pytest.mark.parametrize("timeout", [0.5, 1.5])
def test_a_timeout_is_that_of_the_whole_call(timeout: float, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Client(silo="localhost:1", tls_ca=authority.certificate, encoder=client_encoder(), timeout=timeout) as client:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="localhost:1"):
            client.classify(QUERIES)
        assert time.monotonic() - started < timeout + 5  # far from several times the timeout of a long one


def test_a_model_that_loads_takes_no_time_from_the_silo(
    client: Client, fake: FakeSilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is made in the same worker thread, after it."""
    monkeypatch.setattr(session, "_FIRST_SECONDS", 0.5)
    client._client.session._worker.submit(time.sleep, 1.0)
    assert client._wait(client._client.session.describe()).name
    assert fake.calls == ["Describe"]


def test_a_silent_silo_is_given_up(client: Client, fake: FakeSilo) -> None:
    client.align(PUBLIC)
    client._client.session.timeout = 1.0

    def silent(method: str, reply: Any) -> Any:
        if method == "Classify":
            time.sleep(4)
        return reply

    fake.tamper = silent
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        client.classify(QUERIES[0])
    assert time.monotonic() - started < 3.5


def test_a_closed_client_says_so_and_closes_twice(client: Client) -> None:
    client.describe()
    client.close()
    client.close()
    for use in (
        lambda: client.classify(QUERIES),
        lambda: client.describe(),
        lambda: list(client.classify_each(QUERIES)),
        lambda: client.align(PUBLIC),
        lambda: client.encoder,
    ):
        with pytest.raises(MachineError, match="closed"):
            use()


def test_threads_that_wait_when_a_client_closes_are_told(client: Client, fake: FakeSilo) -> None:
    client.align(PUBLIC)
    client.classify(QUERIES[0])
    asked = threading.Barrier(len(QUERIES) + 1)

    def slow(method: str, reply: Any) -> Any:
        time.sleep(2.0)
        return reply

    def ask(query: str) -> BaseException | None:
        asked.wait()
        try:
            client.classify(query)
        except BaseException as error:  # noqa: BLE001 - it is looked at
            return error
        return None

    fake.tamper = slow
    with ThreadPoolExecutor(len(QUERIES)) as pool:
        waiting = [pool.submit(ask, query) for query in QUERIES]
        asked.wait()
        time.sleep(0.3)
        client.close()
        errors = [one.result(timeout=10) for one in waiting]
    assert {type(error) for error in errors} == {MachineError}


def test_a_client_is_not_sent_to_another_process(client: Client) -> None:
    with pytest.raises(MachineError, match="in each process"):
        pickle.dumps(client.classify)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_is_told_at_once(client: Client) -> None:
    client.describe()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        try:
            client.classify(QUERIES)
        except MachineError as error:
            said = str(error).encode()
        finally:
            client.close()
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert b"spawn" in pipe.read()
    os.waitpid(child, 0)


async def test_making_and_closing_a_client_blocks_no_loop(address: Address, tmp_path: Path) -> None:
    """The encoder takes a second to embed; meanwhile and while the client closes, the loop turns."""

    class Slow:
        card = client_encoder().card

        def encode(self, texts: Any, **_: Any) -> Any:
            time.sleep(1.0)
            return client_encoder().encode(texts)

    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    ticking = asyncio.create_task(tick())
    own = AsyncClient(**address.settings(map_directory=tmp_path / "maps"), encoder=Slow())
    working = asyncio.create_task(own.align(PUBLIC))
    await asyncio.sleep(0.3)
    await own.close()
    await own.close()
    ticking.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert max(gaps) < 0.9


def test_several_clients_of_one_process_share_nothing(address: Address, fake: FakeSilo, tmp_path: Path) -> None:
    settings = address.settings(map_directory=tmp_path / "maps")
    with Client(**settings, encoder=client_encoder()) as one, Client(**settings, encoder=client_encoder()) as two:
        one.align(PUBLIC)
        assert one.classify(QUERIES[0]).label == two.classify(QUERIES[0]).label
    assert len(set(fake.keys)) == 2
