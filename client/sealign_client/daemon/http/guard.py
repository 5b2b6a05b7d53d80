"""What stands before every endpoint: hosts, origins, tokens, sizes, times, numbers, and headers of every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sealign.errors import SealignError
from sealign_client.daemon.http.operations import EVENTS, JSON, Operation, Service
from sealign_client.daemon.http.problems import HttpError, problem_response

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "600",
}
_SMALL_BODY = 64 << 10
"""Bytes, for endpoints that do no work."""

_DRAINED_BYTES = 4 << 20
_DRAINED_SECONDS = 1.0

Find = Callable[[Scope], "tuple[Operation | None, str]"]


class Guard:
    """Middleware that refuses before work is done, and ends what nobody waits for.

    Args:
        find: names the operation of a request and the path under which it is counted.
    """

    def __init__(self, app: ASGIApp, service: Service, find: Find) -> None:
        self._app = app
        self._service = service
        self._find = find
        self._working = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = _Answer(send, self._service, Headers(scope=scope))
        operation, path = self._find(scope)
        started = perf_counter()
        try:
            self._check(scope, operation, path)
            if _is_preflight(scope) and answer.origin is not None:
                await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, answer)
            else:
                await self._bounded(operation, scope, receive, answer)
        except (HttpError, SealignError) as error:
            await answer.refuse(error, scope, receive)
        except Exception as error:  # noqa: BLE001 - becomes an id; the reason is in the log
            await answer.refuse(error, scope, receive)
        finally:
            self._service.metrics.count_call(path, answer.status or 499, perf_counter() - started)

    def _check(self, scope: Scope, operation: Operation | None, path: str) -> None:
        headers, access = Headers(scope=scope), self._service.access
        access.check_host(headers)
        access.check_origin(headers, navigation=operation is None and path != "other")
        if operation is not None and operation.secured:
            access.check_token(headers)
        if operation is not None and operation.takes_body:
            _check_media(headers, operation.body_media)

    async def _bounded(self, operation: Operation | None, scope: Scope, receive: Receive, answer: _Answer) -> None:
        options = self._service.options
        works = operation is not None and operation.works
        if works and self._working >= options.max_concurrent:
            raise HttpError(
                429,
                "OVERLOADED",
                f"{options.max_concurrent} calls are at work. Retry later.",
                headers={"Retry-After": "1"},
            )
        self._working += works
        self._service.metrics.in_flight.inc(works)
        streams = operation is not None and EVENTS in operation.media
        limit = options.stream_timeout if streams else options.timeout
        try:
            body = await asyncio.wait_for(self._body(operation, scope, receive), options.timeout)
            await asyncio.wait_for(_while_connected(self._app, scope, body, receive, answer), limit)
        except asyncio.TimeoutError:
            raise HttpError(504, "UNAVAILABLE", f"The call took more than {limit:g} s and was ended.") from None
        finally:
            self._working -= works
            self._service.metrics.in_flight.dec(works)

    async def _body(self, operation: Operation | None, scope: Scope, receive: Receive) -> bytes:
        """Read the body, and no more than is allowed of it."""
        options = self._service.options
        limit = _SMALL_BODY
        if operation is not None and operation.body_media != JSON:
            limit = options.max_public_bytes
        elif operation is not None and operation.works:
            limit = options.max_body_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > limit:
            await _drain(receive)
            raise _too_large(limit)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HttpError(400, "INVALID_INPUT", "The connection ended before the body.")
            body += message.get("body", b"")
            if len(body) > limit:
                await _drain(receive)
                raise _too_large(limit)
            if not message.get("more_body"):
                return bytes(body)


class _Answer:
    """The sending side of one call: adds headers, and knows whether the answer has begun.

    Attributes:
        origin: the other web origin whose page may read the answer; None if there is none.
        status: HTTP status that was sent; 0 before.
    """

    def __init__(self, send: Send, service: Service, request: Headers) -> None:
        self._send = send
        self.origin = service.access.allowed_origin(request)
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if self.origin is not None:
                headers["Access-Control-Allow-Origin"] = self.origin
                headers["Cross-Origin-Resource-Policy"] = "cross-origin"
                headers.add_vary_header("Origin")
        await self._send(message)

    async def refuse(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """Send the problem, unless the answer has begun or nobody listens any more."""
        if not self.status:
            response = problem_response(error)
            with suppress(OSError):
                await response(scope, receive, self)


async def _while_connected(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Run the application until it is done or the caller has left, which cancels it."""
    left = asyncio.Event()
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    work, watcher = asyncio.ensure_future(_as_task(app(scope, replay, send))), asyncio.ensure_future(watch())
    try:
        await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        for task in (work, watcher):
            task.cancel()
        await asyncio.gather(work, watcher, return_exceptions=True)


async def _as_task(work: Awaitable[None]) -> None:
    await work


def _is_preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in Headers(scope=scope)


def _check_media(headers: Headers, expected: str) -> None:
    media, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower()
    if media.strip().lower() != expected or charset not in ("", "charset=utf-8", 'charset="utf-8"'):
        raise HttpError(415, "INVALID_INPUT", f"The body must be {expected} in UTF-8. Set Content-Type: {expected}.")
    if headers.get("content-encoding", "identity") != "identity":
        raise HttpError(415, "INVALID_INPUT", "The body must not be compressed. Remove Content-Encoding.")


async def _drain(receive: Receive) -> None:
    """Discard a little of what still comes, so that a caller that only writes gets to read the refusal."""
    left, more = _DRAINED_BYTES, True
    with suppress(asyncio.TimeoutError):
        while left > 0 and more:
            message = await asyncio.wait_for(receive(), _DRAINED_SECONDS)
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)


def _too_large(limit: int) -> HttpError:
    return HttpError(
        413,
        "INVALID_INPUT",
        f"The body is larger than {limit:,} bytes. Send fewer texts at a time.",
        headers={"Connection": "close"},
    )
