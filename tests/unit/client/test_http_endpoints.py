"""The HTTP interface's endpoints, by the conventions that developers have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from sealign.errors import BudgetExhaustedError, PeerFailedError, StorageError, UnavailableError
from sealign_client.daemon.http import Access, HttpOptions, Service, http_app
from tests.support.http_backend import LABELS, WINDOW, WORDS, FakeBackend

TOKEN = "t" * 40


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
async def client(backend: FakeBackend) -> AsyncIterator[httpx.AsyncClient]:
    options = HttpOptions(token=TOKEN)
    app = http_app(Service(backend, options, Access(options)))
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7451", headers=headers) as client:
        yield client


async def problem(response: httpx.Response, status: int, code: str) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"/docs#{code}"
    return str(body["detail"])


async def test_predict_answers_one_text_with_every_label_the_likeliest_first(client: httpx.AsyncClient) -> None:
    scores = (await client.post("/predict", json={"inputs": "rates rose"})).json()
    assert {score["label"] for score in scores} == set(LABELS)
    values = [score["score"] for score in scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)


async def test_predict_answers_a_batch_in_its_order(client: httpx.AsyncClient) -> None:
    batch = (await client.post("/predict", json={"inputs": [["rates rose"], ["wheat fell"]]})).json()
    single = (await client.post("/predict", json={"inputs": "wheat fell"})).json()
    assert len(batch) == 2
    assert batch[1] == single


async def test_raw_scores_are_logits(client: httpx.AsyncClient) -> None:
    raw = (await client.post("/predict", json={"inputs": "rates rose", "raw_scores": True})).json()
    soft = (await client.post("/predict", json={"inputs": "rates rose"})).json()
    logits = np.array([score["score"] for score in raw])
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), [score["score"] for score in soft])


async def test_a_pair_of_texts_is_refused_and_not_read_as_a_batch(client: httpx.AsyncClient) -> None:
    response = await client.post("/predict", json={"inputs": ["premise", "hypothesis"]})
    await problem(response, 422, "INVALID_INPUT")


async def test_a_long_text_is_refused_unless_truncated(client: httpx.AsyncClient) -> None:
    text = "a" * (WINDOW + 1)
    assert "window" in await problem(await client.post("/predict", json={"inputs": text}), 422, "INVALID_INPUT")
    assert (await client.post("/predict", json={"inputs": text, "truncate": True})).status_code == 200
    assert (await client.post("/classify", json={"input": text})).status_code == 422
    assert (await client.post("/classify", json={"input": text, "long_texts": "split"})).status_code == 200


async def test_classify_has_vllms_shape(client: httpx.AsyncClient) -> None:
    body = (await client.post("/classify", json={"model": "topics", "input": ["rates rose", "wheat"]})).json()
    assert (body["object"], body["model"]) == ("list", "topics")
    assert [entry["index"] for entry in body["data"]] == [0, 1]
    for entry in body["data"]:
        assert entry["num_classes"] == len(entry["probs"]) == len(LABELS)
        assert entry["label"] == LABELS[int(np.argmax(entry["probs"]))]
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] == 3


async def test_unknown_fields_and_wrong_types_are_named_and_no_value_is_quoted(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", json={"input": ["zygomorphic", 7], "colour": "petunia"})
    assert "#/colour: unknown field" in await problem(response, 422, "INVALID_INPUT")
    assert {fault["pointer"] for fault in response.json()["errors"]} >= {"#/colour", "#/input/1"}
    assert "zygomorphic" not in response.text
    assert "petunia" not in response.text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"input": "\\ud800"}', b"[" * 100_000])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/classify", content=content, headers={"Content-Type": "application/json"})
    await problem(response, 400, "INVALID_INPUT")


async def test_an_unknown_task_is_not_found(client: httpx.AsyncClient) -> None:
    await problem(await client.post("/classify", json={"model": "weather", "input": "rain"}), 404, "NOT_FOUND")


async def test_a_completion_is_whole(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    request = {"model": "prose", "prompt": "Once", "max_tokens": 3, "seed": 7, "temperature": 0, "logprobs": 2}
    body = (await client.post("/v1/completions", json=request)).json()
    (choice,) = body["choices"]
    assert (body["object"], body["model"]) == ("text_completion", "prose")
    assert (choice["text"], choice["finish_reason"]) == ("".join(WORDS[:3]), "length")
    assert choice["logprobs"]["tokens"] == list(WORDS[:3])
    assert choice["logprobs"]["text_offset"] == [0, 3, 9]
    assert len(choice["logprobs"]["top_logprobs"][0]) == 2
    assert body["usage"]["completion_tokens"] == 3
    assert body["ciphertexts"] == {"query_bytes": 9000, "reply_bytes": 3000, "silo_ms": 7.5}
    assert body["mixture"] is False
    assert choice["logprobs"]["silo_token_logprobs"] is None
    sampling = backend.seen["sampling"]
    assert (sampling.temperature, sampling.seed) == (0, 7)  # type: ignore[attr-defined]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_mixture_is_asked_for_and_said(
    client: httpx.AsyncClient, backend: FakeBackend, *, stream: bool
) -> None:
    request = {"prompt": "Once", "max_tokens": 2, "mixture": True, "logprobs": 1, "stream": stream}
    response = await client.post("/v1/completions", json=request)
    first = response.text.split("\n\n")[0].removeprefix("data: ")
    body = json.loads(first)
    assert backend.seen["mixture"] is True
    assert body["mixture"] is True
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["silo_token_logprobs"] == [-0.75] * len(logprobs["tokens"])


async def test_a_completion_streams(client: httpx.AsyncClient) -> None:
    request = {"prompt": "Once", "stream": True, "stream_options": {"include_usage": True}}
    response = await client.post("/v1/completions", json=request)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    assert end == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == "".join(WORDS)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[0]["ciphertexts"]["reply_bytes"] == 1000
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], len(WORDS))


async def test_a_stream_that_fails_says_so_in_the_stream(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.token_failure = UnavailableError("The silo went away. Retry.")
    response = await client.post("/v1/completions", json={"prompt": "Once", "stream": True})
    *_, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert json.loads(last)["error"]["code"] == "UNAVAILABLE"


async def test_a_stream_that_cannot_begin_has_a_status(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.failure = UnavailableError("The silo does not answer.")
    response = await client.post("/v1/completions", json={"prompt": "Once", "stream": True})
    await problem(response, 503, "UNAVAILABLE")


@pytest.mark.parametrize(
    "fields", [{"n": 2}, {"echo": True}, {"presence_penalty": 0.5}, {"logit_bias": {}}, {"prompt": ["a", "b"]}]
)
async def test_what_is_not_supported_is_refused(client: httpx.AsyncClient, fields: dict[str, object]) -> None:
    response = await client.post("/v1/completions", json={"prompt": "Once"} | fields)
    assert next(iter(fields)) in await problem(response, 422, "INVALID_INPUT")


async def test_liveness_and_readiness_are_two_things(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    assert (await client.get("/ready")).json() == {"status": "ready", "silo": "newswire", "tasks": 2}
    backend.failure = UnavailableError("The silo does not answer.")
    assert (await client.get("/health")).status_code == 200
    await problem(await client.get("/ready"), 503, "UNAVAILABLE")
    assert (await client.get("/info")).json()["silo"] is None
    backend.failure, backend.aligned = None, False
    assert "sealign align" in await problem(await client.get("/ready"), 409, "NO_MAP")
    assert (await client.get("/v1/models")).json()["data"] == []
    backend.aligned = True
    assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["topics", "prose"]


async def test_a_failure_of_this_machine_becomes_an_id(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    for failure in (StorageError("cannot read /home/me/secret.key"), ZeroDivisionError("/home/me")):
        backend.failure = failure
        detail = await problem(await client.post("/predict", json={"inputs": "rates"}), 500, "PEER_FAILED")
        assert "/home/me" not in detail
        assert "under id" in detail
    backend.failure = PeerFailedError("the silo failed under id 1234")
    await problem(await client.post("/predict", json={"inputs": "rates"}), 502, "PEER_FAILED")


async def test_waiting_is_advised_where_it_helps(client: httpx.AsyncClient, backend: FakeBackend) -> None:
    backend.failure = BudgetExhaustedError("No rows left today.", retry_after=90.5)
    response = await client.post("/predict", json={"inputs": "rates"})
    await problem(response, 429, "BUDGET_EXHAUSTED")
    assert response.headers["retry-after"] == "91"


async def test_metrics_count_calls_and_texts_and_no_path_of_a_caller(client: httpx.AsyncClient) -> None:
    await client.post("/predict", json={"inputs": [["a"], ["b"]]})
    await client.post("/predict", json={"inputs": 7})
    await client.get("/zygomorphic")
    text = (await client.get("/metrics")).text
    assert 'sealign_http_requests_total{path="/predict",status="200"} 1.0' in text
    assert 'sealign_http_requests_total{path="/predict",status="422"} 1.0' in text
    assert "sealign_http_texts_total 2.0" in text
    assert "sealign_canaries_compared 120.0" in text
    assert "sealign_canary_alarm 1.0" in text
    (canaries,) = (await client.get("/info")).json()["canaries"]
    assert (canaries["wrong"], canaries["is_alarm"]) == (1, True)
    assert "zygomorphic" not in text


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    await problem(await client.get("/v2/models"), 404, "NOT_FOUND")
    response = await client.delete("/predict")
    await problem(response, 405, "INVALID_INPUT")
    assert response.headers["allow"] == "POST"
