"""What stands before every endpoint: a browser, a stranger and a flood get nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from sealign.errors import InvalidInputError, UnavailableError
from sealign_client.daemon.http import OPERATIONS, Access, HttpOptions, HttpServer, Service
from tests.support.http_backend import FakeBackend

TOKEN = "t" * 40
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SITE = "https://app.example"


@asynccontextmanager
async def serving(
    backend: FakeBackend, listen: str = "127.0.0.1:0", **fields: object
) -> AsyncIterator[tuple[HttpServer, httpx.AsyncClient]]:
    options = HttpOptions(**{"token": TOKEN} | fields)  # type: ignore[arg-type]
    server = HttpServer(Service(backend, options, Access(options)), listen)
    await server.start()
    path = server.address.removeprefix("unix:") if server.address.startswith("unix:") else None
    base = "http://localhost" if path else server.address
    transport = httpx.AsyncHTTPTransport(uds=path)
    try:
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=10) as client:
            yield server, client
    finally:
        await server.stop()


async def classify(client: httpx.AsyncClient, text: str = "rates rose", **headers: str) -> httpx.Response:
    return await client.post("/classify", json={"input": text}, headers=BEARER | headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.2:80", "", "localhost@evil.example"]
)
async def test_another_hosts_name_is_refused_as_dns_rebinding_sends_it(host: str) -> None:
    async with serving(FakeBackend()) as (_, client):
        for path in ("/", "/health", "/openapi.json", "/nothing"):
            response = await client.get(path, headers=BEARER | {"Host": host})
            assert response.status_code in (400, 403)
        assert (await classify(client, Host=host)).status_code in (400, 403)


async def test_names_of_this_computer_and_allowed_ones_are_accepted() -> None:
    async with serving(FakeBackend(), hosts=("daemon.internal",)) as (_, client):
        for host in ("127.0.0.1", "localhost:7451", "LOCALHOST", "[::1]:7451", "daemon.internal:80"):
            assert (await classify(client, Host=host)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
async def test_another_sites_page_is_refused_even_with_the_token(headers: dict[str, str]) -> None:
    backend = FakeBackend()
    async with serving(backend) as (_, client):
        response = await classify(client, **headers)
        assert (response.status_code, response.json()["code"]) == (403, "NOT_PERMITTED")
        assert "access-control-allow-origin" not in response.headers
        preflight = {"Access-Control-Request-Method": "POST"} | headers
        assert (await client.options("/classify", headers=preflight)).status_code in (403, 405)
    assert backend.started == 0


async def test_a_link_on_another_site_may_open_the_page_and_nothing_else() -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with serving(FakeBackend()) as (_, client):
        assert (await client.get("/", headers=headers)).status_code == 200
        assert (await client.get("/v1/models", headers=headers | BEARER)).status_code == 403


async def test_an_origin_that_is_configured_may_call() -> None:
    async with serving(FakeBackend(), origins=(SITE,)) as (server, client):
        preflight = await client.options("/classify", headers={"Origin": SITE, "Access-Control-Request-Method": "POST"})
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == SITE
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        response = await classify(client, Origin=SITE)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, SITE)
        assert "origin" in response.headers["vary"].lower()
        assert (await classify(client, Origin=server.address)).status_code == 200


async def test_every_secured_endpoint_needs_the_token() -> None:
    async with serving(FakeBackend()) as (_, client):
        for operation in OPERATIONS:
            path = operation.path.format(id="0" * 16)
            for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
                response = await client.request(operation.method, path, headers=given)
                assert (response.status_code == 401) == operation.secured, path
                if operation.secured:
                    assert response.headers["www-authenticate"].startswith("Bearer")
        open_paths = {operation.path for operation in OPERATIONS if not operation.secured}
        assert open_paths == {"/health", "/ready", "/page/session"}


async def test_a_ticket_opens_the_page_once() -> None:
    async with serving(FakeBackend()) as (server, client):
        assert server.page_url is not None
        ticket = server.page_url.partition("#ticket=")[2]
        assert TOKEN not in server.page_url
        assert (await client.post("/page/session", json={"ticket": "x" * 32})).status_code == 401
        session = (await client.post("/page/session", json={"ticket": ticket})).json()["token"]
        assert session != TOKEN
        assert (await classify(client, Authorization=f"Bearer {session}")).status_code == 200
        assert (await client.post("/page/session", json={"ticket": ticket})).status_code == 401


@pytest.mark.parametrize(
    "media",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"],
)
async def test_other_content_types_are_refused(media: str) -> None:
    async with serving(FakeBackend()) as (_, client):
        headers = BEARER | {"Content-Type": media}
        response = await client.post("/classify", content=b'{"input": "rates"}', headers=headers)
        assert response.status_code == 415
        headers = BEARER | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert (await client.post("/classify", content=b"{}", headers=headers)).status_code == 415


async def test_a_body_that_is_too_large_is_refused_declared_or_not() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"a" * 1024

    backend = FakeBackend()
    async with serving(backend, max_body_bytes=10_000) as (_, client):
        headers = BEARER | {"Content-Type": "application/json"}
        assert (await client.post("/classify", content=b"a" * 10_001, headers=headers)).status_code == 413
        assert (await client.post("/classify", content=endless(), headers=headers)).status_code == 413
        assert (await classify(client, "a" * 2000)).status_code == 200
        assert (await client.post("/page/session", content=b"a" * 70_000, headers=headers)).status_code == 413
    assert backend.started == 1


async def test_more_calls_than_allowed_are_refused_at_once_and_cheap_ones_are_not() -> None:
    backend = FakeBackend(delay=1.0)
    async with serving(backend, max_concurrent=2) as (_, client):
        working = [asyncio.create_task(classify(client)) for _ in range(2)]
        while backend.started < 2:
            await asyncio.sleep(0.01)
        refused = await classify(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200
        assert [(await task).status_code for task in working] == [200, 200]
        backend.delay = 0
        assert (await classify(client)).status_code == 200


async def test_a_call_that_takes_too_long_is_ended() -> None:
    backend = FakeBackend(delay=30)
    async with serving(backend, timeout=0.2) as (_, client):
        response = await classify(client)
        assert (response.status_code, response.json()["code"]) == (504, "UNAVAILABLE")
    assert backend.cancelled == 1


async def test_a_body_that_does_not_come_ends_the_call() -> None:
    async with serving(FakeBackend(), timeout=0.2) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.address.rpartition(":")[2]))
        head = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n".encode())
        assert b" 504 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_is_not_served_to_the_end(stream: bool) -> None:
    backend = FakeBackend(delay=0.2 if stream else 5)
    async with serving(backend) as (_, client):
        request = {"prompt": "Once", "stream": stream}
        call = asyncio.create_task(client.post("/v1/completions", json=request, headers=BEARER))
        while backend.started < (2 if stream else 1):
            await asyncio.sleep(0.01)
        call.cancel()
        for _ in range(200):
            if backend.cancelled:
                break
            await asyncio.sleep(0.01)
        assert backend.cancelled == 1
        assert backend.started <= 3


async def test_answers_cannot_be_framed_sniffed_or_cached() -> None:
    async with serving(FakeBackend()) as (_, client):
        for path in ("/", "/docs", "/health", "/nothing", "/info"):
            headers = (await client.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers


async def test_the_page_asks_nothing_of_other_hosts() -> None:
    async with serving(FakeBackend()) as (_, client):
        for path in ("/", "/docs"):
            text = (await client.get(path)).text
            assert "https://" not in text
            assert "//" not in text.replace("<!doctype html>", "").replace("http://www.w3.org/2000/svg", "")
            assert "<script>" not in text
            assert "style=" not in text


async def test_a_unix_socket_needs_no_token_and_only_its_owner_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "daemon.sock"
    async with serving(FakeBackend(), f"unix:{path}", token=None) as (server, client):
        assert path.stat().st_mode & 0o777 == 0o600
        assert server.page_url is None
        assert (await client.post("/classify", json={"input": "rates"})).status_code == 200
        with pytest.raises(UnavailableError, match="in use"):
            HttpServer(Service(FakeBackend(), HttpOptions(), Access(HttpOptions())), f"unix:{path}")
    assert not path.exists()


async def test_a_socket_that_a_killed_daemon_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "daemon.sock"
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(path))
    async with serving(FakeBackend(), f"unix:{path}", token=None) as (_, client):
        assert (await client.get("/health")).status_code == 200
    path.write_text("mine")
    with pytest.raises(UnavailableError, match="no socket"):
        HttpServer(Service(FakeBackend(), HttpOptions(), Access(HttpOptions())), f"unix:{path}")
    assert path.read_text() == "mine"


async def test_tcp_without_a_token_and_bad_addresses_are_refused() -> None:
    for listen in ("127.0.0.1:0", "7451", "localhost:http", "127.0.0.1:99999"):
        options = HttpOptions(token=None if listen == "127.0.0.1:0" else TOKEN)
        with pytest.raises(InvalidInputError):
            HttpServer(Service(FakeBackend(), options, Access(options)), listen)
