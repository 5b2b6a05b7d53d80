"""The frame of a gRPC server: every call passes one chain of layers, and handlers know none of it.

A handler takes its request (a message, or an iterator of messages) and the :class:`Call`, and returns a message, or
yields messages. It raises `SealignError`. The frame reads and parses messages, within time and size, tells the layers
about each, writes replies, and turns errors into statuses. Layers see a call begin in order, and end in reverse.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.message import Message

from sealign.app.bounded import MAX_PARTS, parse
from sealign.app.ending import Ending
from sealign.app.within import Within
from sealign.errors import InvalidInputError, OverloadedError, SealignError, UnavailableError
from sealign.protocol.status import sendable, status_of, trailers_of

_log = structlog.get_logger()

REQUEST_ID = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Fact: TypeAlias = "str | int | float"


@dataclass(eq=False)
class Call:
    """One call on its way through the frame.

    Attributes:
        method: its name without the service, for example "Classify".
        request_id: chosen by the caller in its metadata, or here.
        context: gRPC's; for layers.
        identity: of the caller; a layer sets it.
        credential: digest of what proved it, if that can end before the call does; the same layer sets it.
        proxy: trusted peer that named the caller; empty for none. The same layer sets it.
        idle_seconds: how long a stream may be silent.
        facts: names and counts for the log; never content.
        layers: that the call passes, which are told what happens to it.
    """

    method: str
    request_id: str
    context: Any
    idle_seconds: float
    identity: str = ""
    credential: str = ""
    proxy: str = ""
    facts: dict[str, Fact] = field(default_factory=dict)
    started: float = field(default_factory=perf_counter)
    layers: tuple[Layer, ...] = ()

    def note(self, **facts: Fact) -> None:
        """Add facts to the call's log record."""
        self.facts.update(facts)

    def record(self, kind: str, **facts: Fact) -> None:
        """Tell the layers of a deed that must not be forgotten, before it is done; one that cannot note it raises."""
        for layer in self.layers:
            layer.on_record(self, kind, facts)

    def note_stage(self, stage: str, seconds: float) -> None:
        """Tell the layers how long a stage of the work took."""
        for layer in self.layers:
            layer.on_stage(self, stage, seconds)

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """Time what is done inside, as a stage of the work."""
        started = perf_counter()
        yield
        self.note_stage(stage, perf_counter() - started)

    @property
    def remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        left: float | None = self.context.time_remaining()
        return left


class Layer:
    """One concern of every call. The base does nothing."""

    def on_begin(self, call: Call) -> None:
        """See a call before the layers that follow and the handler do; may refuse by raising."""

    def on_request(self, call: Call, message: Message) -> None:
        """See each message from the peer before the handler does; may refuse by raising."""

    def on_record(self, call: Call, kind: str, facts: Mapping[str, Fact]) -> None:
        """Note a deed durably before it is done; may refuse by raising."""

    def on_stage(self, call: Call, stage: str, seconds: float) -> None:
        """Note how long a stage of a call's work took; may be told in another thread."""

    def on_end(self, call: Call, ending: Ending) -> None:
        """See how a call ended that this layer has let pass, before its caller is told; innermost first."""


@dataclass(frozen=True)
class FrameLimits:
    """Bounds of what a peer may make the frame wait for, or hold in memory.

    Attributes:
        message_seconds: for the request of a call that is no stream.
        idle_seconds: silence within a stream.
        slow_reads: requests that may take longer than a second to come, at once.
        message_bytes: by method; others may be as large as gRPC lets them.
        parts: of one message.
    """

    message_seconds: float = 30.0
    idle_seconds: float = 300.0
    slow_reads: int = 16
    message_bytes: Mapping[str, int] = field(default_factory=dict)
    parts: int = MAX_PARTS


class Frame(grpc.aio.ServerInterceptor):
    """Frames every method of some services; others, such as health, pass by.

    Args:
        services: full names.
        layers: the chain, in the order in which they see a call begin.
        limits: of reading and writing.
    """

    def __init__(self, services: Collection[str], layers: Sequence[Layer], limits: FrameLimits) -> None:
        self._services = frozenset(services)
        self._layers = tuple(layers)
        self._limits = limits
        self._framed: dict[str, Any] = {}
        self._slow_reads = 0
        self.begun = 0
        """Calls that have come so far."""

    async def intercept_service(  # the handler's types are its method's
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler inside the frame."""
        path = str(details.method)
        if path not in self._framed:
            handler = await continuation(details)
            if handler is None or path.split("/")[1] not in self._services:
                return handler
            self._framed[path] = self._wrapped(path.rpartition("/")[2], handler)
        return self._framed[path]

    def _wrapped(self, method: str, handler: Any) -> Any:
        """Return a handler of raw bytes in place of one of messages."""
        kind: type[Message] = handler.request_deserializer.__self__
        behaviour = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary

        async def unary(raw: AsyncIterator[bytes], context: Any) -> Message:
            async with self._around(method, context) as call:
                request = await self._request(call, kind, raw, handler.request_streaming)
                reply: Message = await behaviour(request, call)
                return reply
            raise AssertionError("unreachable: errors end the call")

        async def stream(raw: AsyncIterator[bytes], context: Any) -> None:
            async with self._around(method, context) as call:
                request = await self._request(call, kind, raw, handler.request_streaming)
                async for reply in behaviour(request, call):
                    # Ends when the peer has room for it. Nothing is held meanwhile but the stream itself.
                    await context.write(reply)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(stream if handler.response_streaming else unary, None, handler.response_serializer)

    @asynccontextmanager
    async def _around(self, method: str, context: Any) -> AsyncIterator[Call]:
        """Pass the layers; whatever is raised inside ends the call with one status."""
        call = Call(method, _request_id(context), context, self._limits.idle_seconds, layers=self._layers)
        self.begun += 1
        ending = Ending()
        try:
            with ExitStack() as passed, ending.noted():
                for layer in self._layers:
                    layer.on_begin(call)
                    passed.callback(layer.on_end, call, ending)
                yield call
        except SealignError as error:
            await _end(call, error)
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - the last place where one can be turned into a status
            await _end(call, error)

    async def _request(self, call: Call, kind: type[Message], raw: AsyncIterator[bytes], streaming: bool) -> Any:
        """Return what the handler takes: the message, or an iterator of messages."""
        if streaming:
            return self._messages(call, kind, raw)
        slow: list[Call] = []
        try:
            limit = _silence(self._limits.message_seconds)
            with Within(1.0, lambda: self._slow(call, slow)), limit:
                content = await anext(raw, None)
        finally:
            self._slow_reads -= len(slow)
        if content is None:
            raise InvalidInputError(f"a call of {call.method} needs a request")
        return self._parsed(call, kind, content)

    async def _messages(self, call: Call, kind: type[Message], raw: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        while True:
            with _silence(call.idle_seconds):
                content = await anext(raw, None)
            if content is None:
                return
            yield self._parsed(call, kind, content)

    def _parsed(self, call: Call, kind: type[Message], content: bytes) -> Message:
        most = self._limits.message_bytes.get(call.method)
        if most is not None and len(content) > most:
            raise InvalidInputError(
                f"a message of {call.method} has {len(content)} bytes, more than the {most} allowed"
            )
        with call.stage("parse"):
            message = parse(kind, content, self._limits.parts)
        for layer in self._layers:
            layer.on_request(call, message)
        return message

    def _slow(self, call: Call, slow: list[Call]) -> SealignError | None:
        """Let a request take its time, unless too many do: each holds memory of gRPC's meanwhile."""
        if self._slow_reads >= self._limits.slow_reads:
            return OverloadedError("too many requests are slow to come; send this one again", retry_after=1.0)
        self._slow_reads += 1
        slow.append(call)
        return None


def _silence(seconds: float) -> Within:
    """Return a limit on waiting for a peer's next message."""
    return Within(seconds, lambda: UnavailableError(f"the client sent nothing for {seconds:.0f} s"))


def _request_id(context: Any) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


async def _end(call: Call, error: Exception) -> None:
    sent, incident = sendable(error)
    if incident is not None:
        # The message of a machine error is ours; of others it may quote data.
        reason = str(error) if isinstance(error, SealignError) else type(error).__name__
        where = _places(error)[-1:]
        _log.error("internal error", id=incident, method=call.method, request=call.request_id, reason=reason, at=where)
    await call.context.abort(status_of(sent), str(sent), trailers_of(sent))


def _places(error: BaseException) -> list[str]:
    """Return where an error was raised, as module:line, innermost last."""
    places, trace = [], error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places
