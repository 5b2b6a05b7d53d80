"""Clients that others wrote work against the HTTP interface, and so does its own description."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from sealign_client.daemon.http import Access, HttpOptions, HttpServer, Service
from tests.support.http_backend import LABELS, WORDS, FakeBackend
from tests.support.processes import script

TOKEN = "t" * 40


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A served HTTP interface over a client of no silo, in a thread of its own."""
    options = HttpOptions(token=TOKEN)
    found: list[str] = []
    started, stopping = Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = HttpServer(Service(FakeBackend(), options, Access(options)), "127.0.0.1:0")
        await server.start()
        found.append(server.address)
        started.set()
        await stopping.wait()
        await server.stop()

    thread = Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(stopping.set)
    thread.join()
    loop.close()


def test_the_openai_client_completes_streams_and_lists(address: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0) as client:
        assert "prose" in [model.id for model in client.models.list()]
        whole = client.completions.create(model="prose", prompt="Once", max_tokens=5, temperature=0.5, stop=["\n"])
        assert whole.choices[0].text == "".join(WORDS)
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.completion_tokens == len(WORDS)
        options = {"include_usage": True}
        chunks = list(
            client.completions.create(model="prose", prompt="Once", max_tokens=3, stream=True, stream_options=options)
        )
        assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "".join(WORDS[:3])
        assert chunks[-1].usage.completion_tokens == 3


def test_the_openai_client_raises_its_own_errors(address: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="no task") as raised:
            client.completions.create(model="weather", prompt="Once")
        assert raised.value.code == "NOT_FOUND"
        with pytest.raises(openai.UnprocessableEntityError, match="#/n"):
            client.completions.create(model="prose", prompt="Once", n=3)
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_calls_as_text_embeddings_inference_documents_them(address: str) -> None:
    """Bodies and answers as in its README and OpenAPI document."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with httpx.Client(base_url=address, headers=headers) as client:
        one = client.post("/predict", content=b'{"inputs":"I like you."}').json()
        assert [set(score) for score in one] == [{"score", "label"}] * len(LABELS)
        many = client.post("/predict", content=b'{"inputs":[["I like you."],["I hate pineapples"]],"raw_scores":true}')
        assert [len(scores) for scores in many.json()] == [len(LABELS)] * 2
        assert client.post("/predict", json={"inputs": "a", "truncate": True}).status_code == 200
        assert client.get("/health").status_code == 200
        assert {"version", "max_concurrent"} <= set(client.get("/info").json())


@pytest.mark.parametrize(
    ("paths", "excluded"),
    [
        ("--exclude-path-regex", ()),
        # That public texts are distinct lines is beyond a schema.
        ("--include-path-regex", ("--exclude-checks", "positive_data_acceptance")),
    ],
)
def test_the_description_is_what_is_served(address: str, tmp_path: Path, paths: str, excluded: tuple[str, ...]) -> None:
    """Schemathesis: answers are as described, valid bodies are taken, others refused, and the token is needed."""
    pytest.importorskip("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(
        "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422]\n"
    )
    run = subprocess.run(
        [
            *(script("schemathesis"), "run", f"{address}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}"),
            *("--checks", "all", *excluded, paths, "^/page/(public-texts|alignments)"),
            *("--phases", "examples,coverage,fuzzing", "-n", "15", "--generation-deterministic", "--no-color"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, "\n".join(line[:1000] for line in run.stdout.splitlines()[-60:]) + run.stderr[-2000:]
