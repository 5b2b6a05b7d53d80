"""The daemon over HTTP: a real silo, real encoders, both sides' logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from tests.support.corpus import Corpus
from tests.support.http_daemon import HttpDaemon, align, http_daemon
from tests.support.processes import Server, serving
from tests.support.silo import TASK, Tls


@pytest.fixture(scope="module")
def own_silo(trained_directory: Path, tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A silo that nobody has aligned with."""
    directory = tmp_path_factory.mktemp("http")
    shutil.copytree(trained_directory, directory / "silo")
    options = (*tls.serve_options, "--log-level", "debug")
    with serving("sealign-server", "serve", directory / "silo", *options, log=directory / "silo.log") as server:
        yield server


@pytest.fixture(scope="module")
def daemon(
    own_silo: Server, tls: Tls, encoder_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpDaemon]:
    """Its daemon, not aligned yet."""
    with http_daemon(tmp_path_factory.mktemp("http-daemon"), tls, own_silo.port, encoder_name) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def aligned(daemon: HttpDaemon, corpus_files: tuple[Path, Path]) -> HttpDaemon:
    """The same once it is aligned, over HTTP."""
    daemon.wait_until_ready(409)
    with daemon.client() as client:
        refused = client.post("/classify", json={"input": "rates"})
        assert (refused.status_code, refused.json()["code"]) == (409, "NO_MAP")
    state = align(daemon, corpus_files[1])
    assert (state["state"], state["learned"]["rows"]) == ("done", 300)
    assert state["learned"]["explained_variance"] > 0.1
    daemon.wait_until_ready()
    return daemon


@pytest.fixture
def http(aligned: HttpDaemon) -> Iterator[httpx.Client]:
    with aligned.client() as client:
        yield client


def test_http_and_grpc_answer_alike(aligned: HttpDaemon, http: httpx.Client, corpus: Corpus) -> None:
    texts = [item.text for item in corpus.queries[:5]]
    raw = http.post("/predict", json={"inputs": [[text] for text in texts], "raw_scores": True}).json()
    data = http.post("/classify", json={"model": TASK, "input": texts}).json()["data"]
    labels = http.get("/info").json()["tasks"][0]["labels"]
    metadata = (("authorization", f"Bearer {aligned.token}"),)
    with grpc.insecure_channel(aligned.address) as channel:
        reply = DaemonStub(channel).ClassifyTexts(pb.ClassifyTextsRequest(texts=texts), metadata=metadata, timeout=60)
    for scores, entry, other in zip(raw, data, reply.classifications, strict=True):
        assert scores[0]["label"] == entry["label"] == other.label
        logits = {score["label"]: score["score"] for score in scores}
        assert np.abs(np.array([logits[label] for label in labels]) - other.logits).max() <= 2 / 256
        assert entry["in_distribution"] == other.in_distribution
        assert entry["probs"][labels.index(other.label)] == pytest.approx(other.probability, abs=0.02)


def test_many_callers_at_once_each_get_their_own_answers(aligned: HttpDaemon, corpus: Corpus) -> None:
    texts = [item.text for item in corpus.queries[:16]]

    def label(text: str) -> str:
        with aligned.client() as client:
            return str(client.post("/classify", json={"input": text}).raise_for_status().json()["data"][0]["label"])

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(label, texts))
    assert together == [label(text) for text in texts]


def test_the_page_shows_the_call_that_the_silo_has_recorded(
    own_silo: Server, http: httpx.Client, corpus: Corpus
) -> None:
    answer = http.post("/page/inspect", json={"text": "zygomorphic petunias rose in london"}).raise_for_status().json()
    record = answer["record"]
    (logged,) = [event for event in own_silo.events("call") if event["request"] == record["request"]]
    assert {name: logged[name] for name in ("method", "identity", "code", "task", "encoder", "rows")} == {
        name: record[name] for name in ("method", "identity", "code", "task", "encoder", "rows")
    }
    assert {stage["name"] for stage in answer["stages"]} == {"embed", "encrypt", "network", "silo", "decrypt"}
    assert len(answer["stayed"]["embedding"]) == 384
    assert answer["left"]["query_bytes"] > 384 * 4
    assert sum(bar["probability"] for bar in answer["bars"]) == pytest.approx(1)


def test_an_embedding_gives_a_public_text_away_bare_or_rotated_and_the_ciphertext_does_not(
    http: httpx.Client, corpus: Corpus
) -> None:
    public = corpus.public.texts[7]
    close = public[: len(public) * 9 // 10]  # the client's text is a public one, shortened
    answers = [http.post("/page/inspect", json={"text": close}).raise_for_status().json() for _ in range(2)]
    for answer in answers:
        given = answer["given_away"]
        assert given["public_texts"] == 300
        assert given["bare"][0]["text"] == given["rotated"][0]["text"] == public
        assert given["bare"][0]["cosine"] > 0.8
        assert given["rotated"][0]["cosine"] == pytest.approx(given["bare"][0]["cosine"])
        assert given["encrypted"][0]["cosine"] < 0.4
    first, second = (answer["given_away"]["encrypted"] for answer in answers)
    assert first != second


def test_texts_are_in_no_log(aligned: HttpDaemon, own_silo: Server, http: httpx.Client) -> None:
    for path, body in (
        ("/classify", {"input": ["zygomorphic petunias", " "]}),
        ("/predict", {"inputs": "zygomorphic petunias"}),
        ("/page/inspect", {"text": "zygomorphic petunias"}),
        ("/predict", {"inputs": "zygomorphic " * 5000}),
    ):
        response = http.post(path, json=body)
        assert "zygomorphic" not in response.text
    for log in (aligned.log, own_silo.log):
        assert "zygomorphic" not in log
        assert "petunias" not in log
        assert aligned.token not in log


def test_a_long_text_is_refused_by_number_unless_it_may_be_truncated(http: httpx.Client) -> None:
    long = "crude oil prices " * 2000
    refused = http.post("/classify", json={"input": ["rates rose", "a", long]})
    assert (refused.status_code, refused.json()["code"]) == (422, "INVALID_INPUT")
    assert "text 3" in refused.json()["detail"]
    truncated = http.post("/predict", json={"inputs": long, "truncate": True})
    split = http.post("/classify", json={"input": long, "long_texts": "split"})
    assert (truncated.status_code, split.status_code) == (200, 200)


def test_the_printed_address_opens_the_page_once(aligned: HttpDaemon) -> None:
    ticket = aligned.page_url.partition("#ticket=")[2]
    with httpx.Client(base_url=aligned.url) as client:
        session = client.post("/page/session", json={"ticket": ticket}).json()["token"]
        assert client.get("/info", headers={"Authorization": f"Bearer {session}"}).status_code == 200
        assert client.post("/page/session", json={"ticket": ticket}).status_code == 401
        assert client.get("/info").status_code == 401


def test_a_daemon_without_a_model_does_not_generate(http: httpx.Client) -> None:
    response = http.post("/v1/completions", json={"prompt": "interest rates"})
    assert (response.status_code, response.json()["code"]) == (422, "INVALID_INPUT")
    assert "--model" in response.json()["detail"]


def test_the_daemon_starts_before_the_silo_and_outlives_it(
    aligned_copy: Path, tls: Tls, encoder_name: str, tmp_path: Path, unused_port: int
) -> None:
    def silo(number: int) -> object:
        options = (*tls.serve_options, "--listen", f"127.0.0.1:{unused_port}")
        return serving("sealign-server", "serve", aligned_copy, *options, log=tmp_path / f"silo-{number}.log")

    with http_daemon(tmp_path / "daemon", tls, unused_port, encoder_name) as daemon, daemon.client() as client:
        daemon.wait_until_ready(503)
        assert client.get("/health").status_code == 200
        refused = client.post("/classify", json={"input": "rates rose"})
        assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
        with silo(1):  # type: ignore[attr-defined]
            daemon.wait_until_ready()
            assert client.post("/classify", json={"input": "rates rose"}).status_code == 200
        daemon.wait_until_ready(503)
        with silo(2):  # type: ignore[attr-defined]
            daemon.wait_until_ready()
            assert client.post("/classify", json={"input": "rates rose"}).status_code == 200


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
