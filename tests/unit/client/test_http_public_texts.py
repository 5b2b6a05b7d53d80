"""Public texts over HTTP: sent as a file, or named where both sides hold the general set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sealign_client.daemon.http import Access, HttpOptions, Service, http_app
from tests.support.http_backend import FakeBackend

TOKEN = "t" * 40


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    options = HttpOptions(token=TOKEN)
    transport = httpx.ASGITransport(http_app(Service(FakeBackend(), options, Access(options))))
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7451", headers=headers) as client:
        yield client


async def aligned(client: httpx.AsyncClient, content: bytes = b"", **query: str) -> dict[str, Any]:
    state = (await client.post("/page/alignments", params=query, content=content)).raise_for_status().json()
    while state["state"] == "running":
        await asyncio.sleep(0.01)
        state = (await client.get(f"/page/alignments/{state['id']}")).raise_for_status().json()
    assert state["state"] == "done", state
    return dict(state["learned"])


async def test_parts_of_the_general_set_that_the_silo_holds_are_named(client: httpx.AsyncClient) -> None:
    """By their digests: a set of another content is not offered, whatever it is called."""
    held = (await client.get("/page/public-sets")).raise_for_status().json()["public_sets"]
    assert held == [{"name": "general:40", "texts": 40}, {"name": "general:3", "texts": 3}]


async def test_an_alignment_takes_a_file_or_a_name(client: httpx.AsyncClient) -> None:
    assert (await aligned(client, b"one\ntwo\nthree\n"))["rows"] == 3
    assert (await aligned(client, public="general:40"))["rows"] == 40
    assert (await aligned(client, public="general", mode="encrypted"))["rows"] == 20_000


async def test_the_general_set_is_searched_by_its_name(client: httpx.AsyncClient) -> None:
    assert (await client.put("/page/public-texts?public=general")).json() == {"texts": 1000}
    answer = await client.post("/page/inspect", json={"text": "rates"}, headers={"Content-Type": "application/json"})
    assert answer.json()["given_away"]["public_texts"] == 1000


@pytest.mark.parametrize("path", ["/page/alignments", "/page/public-texts"])
async def test_what_names_no_public_texts_is_refused(client: httpx.AsyncClient, path: str, tmp_path: Path) -> None:
    """Above all the path of a file: who calls the daemon reads no file through it."""
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo\n")
    method = "PUT" if path == "/page/public-texts" else "POST"
    for name, content, said in (
        (str(file), b"", "public must be general or general:ROWS"),
        (f"general:{file}", b"", "public must be general or general:ROWS"),
        ("", b"", "public must be general or general:ROWS"),
        ("general:1", b"", "2 to 20000 rows"),
        ("general:20001", b"", "2 to 20000 rows"),
        ("general", b"one\ntwo\n", "given twice"),
    ):
        answer = await client.request(method, path, params={"public": name}, content=content)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")
        assert said in answer.json()["detail"]
    assert (await client.request(method, path)).status_code == 422
