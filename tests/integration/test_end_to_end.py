"""The main job with real processes, text and encoders: init, train, serve, align, classify."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.ckks import DEFAULT_PRECISION
from sealign.encoders import Encoder
from sealign.heads import softmax
from sealign_client import AsyncClient, Client, Timing
from tests.support.corpus import Corpus
from tests.support.processes import Server, command
from tests.support.silo import TASK, ClearModel, Tls
from tests.support.wire import Embeddings, described_services, raw_channel

SERVICE = "sealign.v1.Classification"

pytestmark = pytest.mark.usefixtures("still_serves")


def test_card_tells_what_the_silo_learned(client: Client, corpus: Corpus, tls: Tls) -> None:
    card = client.describe()
    assert card.silo.name == "newswire"
    assert card.silo.identity == tls.client.subject
    assert card.map is not None
    assert card.map.rows == len(corpus.public)
    assert card.map.public_set == corpus.public.digest
    assert 0 < card.map.explained_variance < 1
    (task,) = card.tasks
    assert task.name == TASK
    assert set(task.labels) == {item.label for item in corpus.train}
    assert {plan.rows for plan in task.plans} == {1, 32, 1024}


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_encrypted_logits_equal_the_clear_ones(
    client: Client, clear: ClearModel, query_rows: Embeddings, rows: int
) -> None:
    logits = client.logits(query_rows[:rows])
    expected = clear.logits(query_rows[:rows])
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= DEFAULT_PRECISION
    # Only a tie closer than the precision may fall the other way.
    best = np.sort(expected)[:, -2:]
    decided = best[:, 1] - best[:, 0] > 2 / 256
    assert (logits.argmax(axis=1) == expected.argmax(axis=1))[decided].all()
    assert decided.mean() > 0.7


def test_bulk_goes_through_a_stream_of_batches(client: Client, clear: ClearModel, query_rows: Embeddings) -> None:
    rows = np.tile(query_rows, (28, 1))[:1100]
    done: list[int] = []
    logits = client.logits(rows, progress=done.append)
    assert len(done) > 1
    assert sum(done) == 1100
    assert np.abs(logits - clear.logits(rows)).max() <= DEFAULT_PRECISION


def test_classify_says_label_probability_and_distribution(client: Client, clear: ClearModel, corpus: Corpus) -> None:
    texts = [item.text for item in corpus.queries]
    results = client.classify(texts, TASK)
    assert client.classify(texts[0], TASK).label == results[0].label
    expected = clear.logits(client.encoder.encode(texts))
    probabilities = softmax(expected / client.describe().tasks[0].temperature)
    for row, result in enumerate(results):
        assert np.abs(np.array(result.logits) - expected[row]).max() <= DEFAULT_PRECISION
        assert result.label == clear.labels[int(np.argmax(result.logits))]
        assert result.index == result.labels.index(result.label)
        assert result.probabilities is not None
        assert result.probability == result.probabilities[result.label]
        assert result.probability == pytest.approx(probabilities[row].max(), abs=0.01)
        assert list(result.ood_scores) == ["reject_margin", "energy", "max_softmax", "max_logit", "mahalanobis"]
    accuracy = np.mean([result.label == item.label for result, item in zip(results, corpus.queries, strict=True)])
    assert accuracy > 0.25  # chance is 1/8; the public set is small and about other things, the demo measures quality


def test_no_texts_give_no_results(client: Client) -> None:
    assert client.classify([]) == []


async def test_async_client_and_its_timings(
    silo: Server, tls: Tls, encoder: Encoder, client: Client, corpus: Corpus
) -> None:
    timings: list[Timing] = []
    texts = [item.text for item in corpus.queries[:4]]
    async with AsyncClient(tls.client_settings(silo.port), encoder=encoder, observe=timings.append) as own:
        together = await asyncio.gather(*(own.classify([text]) for text in texts))
    assert [result.label for (result,) in together] == [result.label for result in client.classify(texts)]
    assert len(timings) == len(texts)
    for timing in timings:
        assert 0 < timing.server < timing.round_trip
        assert timing.request_bytes + timing.reply_bytes < 80_000


def test_health_for_every_service(silo: Server, tls: Tls) -> None:
    with raw_channel(silo.address, tls.authority, tls.client) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            reply = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(silo: Server, tls: Tls, version: str) -> None:
    with raw_channel(silo.address, tls.authority, tls.client) as channel:
        assert {SERVICE, "grpc.health.v1.Health"} < described_services(channel, version)


def test_health_command(silo: Server, tls: Tls) -> None:
    files = ("--tls-ca", tls.authority.certificate, "--tls-cert", tls.client.certificate, "--tls-key", tls.client.key)
    ran = command("sealign-server", "health", "--address", f"localhost:{silo.port}", *files)
    assert (ran.returncode, ran.stdout.strip()) == (0, "serving"), ran.stderr
    ran = command("sealign-server", "health", "--address", "localhost:1", *files, "--timeout", "1")
    assert ran.returncode == 75  # try again
    assert ran.stderr.startswith("error: the silo at localhost:1 does not answer")
