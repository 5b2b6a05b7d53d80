"""The daemon: applications send texts on this machine, the silo gets ciphertexts."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealign.errors import AuthenticationError, InvalidInputError, NotFoundError
from sealign.protocol.v1 import daemon_pb2 as pb
from sealign.protocol.v1.daemon_pb2_grpc import DaemonStub
from sealign_client import Client
from tests.support.corpus import Corpus
from tests.support.daemon import daemon_channel
from tests.support.processes import Server
from tests.support.silo import TASK
from tests.support.wire import described_services, refused

pytestmark = pytest.mark.usefixtures("still_serves")


@pytest.fixture(scope="module")
def application(daemon: Server) -> Iterator[grpc.Channel]:
    with daemon_channel(daemon) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(application: grpc.Channel) -> DaemonStub:
    return DaemonStub(application)


def classify(stub: DaemonStub, *texts: str, task: str | None = None) -> pb.ClassifyTextsReply:
    return stub.ClassifyTexts(pb.ClassifyTextsRequest(task=task, texts=texts), timeout=60)


def test_tasks_are_ready(stub: DaemonStub, client: Client) -> None:
    listed = stub.ListTasks(pb.ListTasksRequest(), timeout=30)
    (task,) = listed.tasks
    assert not listed.generation_tasks
    assert (task.name, task.ready) == (TASK, True)
    assert tuple(task.labels) == client.describe().tasks[0].labels


def test_texts_get_the_same_answers_as_from_the_sdk(stub: DaemonStub, client: Client, corpus: Corpus) -> None:
    texts = [item.text for item in corpus.queries[:5]]
    reply = classify(stub, *texts, task=TASK)
    for got, expected in zip(reply.classifications, client.classify(texts), strict=True):
        assert got.label == expected.label
        assert np.abs(np.array(got.logits) - expected.logits).max() <= 2 / 256
        name, threshold = next(iter(client.describe().tasks[0].ood_thresholds.items()))
        assert got.in_distribution == (got.ood_scores[name] >= threshold)


def test_no_texts_no_answers(stub: DaemonStub) -> None:
    assert not classify(stub).classifications


def test_the_token_is_needed(daemon: Server) -> None:
    with grpc.insecure_channel(daemon.address) as channel:
        with refused(grpc.StatusCode.UNAUTHENTICATED, AuthenticationError, "authorization: Bearer"):
            DaemonStub(channel).ListTasks(pb.ListTasksRequest(), timeout=30)
        with refused(grpc.StatusCode.UNAUTHENTICATED, AuthenticationError, "authorization: Bearer"):
            DaemonStub(channel).ListTasks(
                pb.ListTasksRequest(), timeout=30, metadata=(("authorization", "Bearer guessed"),)
            )


def test_callers_share_batches_and_each_gets_its_own(stub: DaemonStub, client: Client, corpus: Corpus) -> None:
    """Many at once, one of them with a text that cannot be read, one that leaves at once."""
    texts = [item.text for item in corpus.queries[:12]]
    left = stub.ClassifyTexts.future(pb.ClassifyTextsRequest(texts=texts * 20), timeout=60)
    calls = [stub.ClassifyTexts.future(pb.ClassifyTextsRequest(texts=[text]), timeout=60) for text in texts]
    faulty = stub.ClassifyTexts.future(pb.ClassifyTextsRequest(texts=[texts[0], " "]), timeout=60)
    left.cancel()
    labels = [call.result().classifications[0].label for call in calls]
    assert labels == [result.label for result in client.classify(texts)]
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "text 2 is empty"):
        faulty.result()


def test_too_many_texts_are_refused_before_they_are_embedded(stub: DaemonStub) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "at most 1024 texts"):
        classify(stub, *["crude oil"] * 1025)


def test_health(application: grpc.Channel) -> None:
    reply = health_pb2_grpc.HealthStub(application).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    ready = health_pb2.HealthCheckRequest(service="sealign.v1.Daemon")
    reply = health_pb2_grpc.HealthStub(application).Check(ready, timeout=10)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_every_service(application: grpc.Channel, version: str) -> None:
    assert {"sealign.v1.Daemon", "grpc.health.v1.Health"} < described_services(application, version)


@pytest.mark.parametrize("text", ["", " \t "])
def test_empty_texts_are_refused_by_index(stub: DaemonStub, text: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "text 2 is empty"):
        classify(stub, "interest rates rose", text)


def test_long_and_huge_texts_are_refused(stub: DaemonStub) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "1 of 1 texts are longer than the 256 tokens"):
        classify(stub, "crude oil prices " * 50_000)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "text 1 has 1,000,001 characters"):
        classify(stub, "a" * 1_000_001)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, None, "larger than max"):
        classify(stub, *["a" * 999_999] * 40)
    assert len(classify(stub, "crude oil prices rose").classifications) == 1


def test_unknown_task(stub: DaemonStub) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "no task 'weather'"):
        classify(stub, "it will rain", task="weather")
    with refused(grpc.StatusCode.NOT_FOUND, NotFoundError, "no task 'xxx"):
        classify(stub, "it will rain", task="x" * 1_000_000)


def test_a_daemon_without_a_model_does_not_generate(stub: DaemonStub) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "no causal model. Start it with --model"):
        list(stub.GenerateText(pb.GenerateTextRequest(prompt="interest rates"), timeout=30))


def test_texts_are_not_logged(daemon: Server, stub: DaemonStub, silo: Server) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, InvalidInputError, "empty"):
        classify(stub, "zygomorphic petunias", "")
    classify(stub, "zygomorphic petunias")
    for log in (daemon.log, silo.log):
        assert "zygomorphic" not in log
        assert "petunias" not in log
