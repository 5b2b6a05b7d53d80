"""The gRPC server's frame: layers in order, one status for each error, bounded work."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from sealign.app.bounded import MAX_PARTS, parse
from sealign.app.ending import Ending
from sealign.app.frame import Call, Fact, Frame, FrameLimits, Layer
from sealign.app.within import Within
from sealign.errors import InvalidInputError, OverloadedError, StorageError, UnavailableError
from sealign.protocol.status import error_of
from sealign.protocol.v1 import classification_pb2 as pb
from sealign.protocol.v1.classification_pb2_grpc import (
    ClassificationServicer,
    ClassificationStub,
    add_ClassificationServicer_to_server,
)
from sealign.protocol.v1.types_pb2 import EncryptedProduct

SERVICE = "sealign.v1.Classification"


class Handlers(ClassificationServicer):
    """Answers by the task's name."""

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyReply:  # type: ignore[override]  # noqa: N802
        if request.task == "recorded":
            call.record("deed")
        if request.task == "disk":
            raise StorageError("/secret/path is full")
        if request.task == "bug":
            raise ValueError("a secret: 0.123456")
        if request.task == "busy":
            raise OverloadedError("come back", retry_after=0.25)
        return pb.ClassifyReply(server_micros=len(request.task))

    async def DescribeTasks(self, request: pb.DescribeTasksRequest, _: Call) -> pb.DescribeTasksReply:  # type: ignore[override]  # noqa: N802
        raise NotImplementedError

    async def ClassifyStream(  # type: ignore[override]  # noqa: N802
        self, requests: AsyncIterator[pb.ClassifyRequest], _: Call
    ) -> AsyncIterator[pb.ClassifyReply]:
        async for request in requests:
            for _index in range(int(request.revision or 1)):
                yield pb.ClassifyReply(
                    server_micros=len(request.task), logits=EncryptedProduct(digest=bytes(len(request.task)))
                )


class Recording(Layer):
    def __init__(self, name: str, seen: list[str]) -> None:
        self._name, self._seen = name, seen

    def on_begin(self, call: Call) -> None:
        self._seen.append(f"{self._name} in")

    def on_end(self, call: Call, ending: Ending) -> None:
        self._seen.append(f"{self._name} out {ending.code}")

    def on_request(self, call: Call, message: Message) -> None:
        self._seen.append(f"{self._name} {type(message).__name__}")


@asynccontextmanager
async def serving(*layers: Layer, limits: FrameLimits | None = None) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(interceptors=[Frame([SERVICE], layers, limits or FrameLimits())])
    add_ClassificationServicer_to_server(Handlers(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_layers_are_entered_in_order_and_see_every_message() -> None:
    seen: list[str] = []
    async with serving(Recording("a", seen), Recording("b", seen)) as channel:
        stub = ClassificationStub(channel)
        assert (await stub.Classify(pb.ClassifyRequest(task="four"))).server_micros == 4
        assert seen == ["a in", "b in", "a ClassifyRequest", "b ClassifyRequest", "b out OK", "a out OK"]
        seen.clear()
        stream = stub.ClassifyStream(iter([pb.ClassifyRequest(task="one"), pb.ClassifyRequest(task="three")]))
        assert [reply.server_micros async for reply in stream] == [3, 5]
        assert seen.count("b ClassifyRequest") == 2


async def test_layers_hear_of_stages_and_may_refuse_what_they_cannot_record() -> None:
    heard: list[str] = []

    class Hearing(Layer):
        def on_stage(self, call: Call, stage: str, seconds: float) -> None:
            heard.append(f"{call.method} {stage} {seconds >= 0}")

        def on_record(self, call: Call, kind: str, facts: Mapping[str, Fact]) -> None:
            raise StorageError("the disk is full")

    async with serving(Hearing()) as channel:
        stub = ClassificationStub(channel)
        await stub.Classify(pb.ClassifyRequest(task="good"))
        assert heard == ["Classify parse True"]
        failure = await refusal(stub.Classify(pb.ClassifyRequest(task="recorded")))
        assert failure.code() is grpc.StatusCode.INTERNAL


async def test_what_the_caller_did_is_sent_and_what_is_wrong_here_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as channel:
        stub = ClassificationStub(channel)
        busy = error_of(await refusal(stub.Classify(pb.ClassifyRequest(task="busy"))), "the silo")
        assert (type(busy), busy.retry_after) == (OverloadedError, 0.25)
        for task in ("disk", "bug"):
            failure = await refusal(stub.Classify(pb.ClassifyRequest(task=task)))
            assert failure.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in (failure.details() or "")
    written = capsys.readouterr()
    assert "0.123456" not in written.out + written.err


@pytest.mark.parametrize("size", [1, 50, 5000])
async def test_bytes_that_are_no_message_are_the_callers_fault(size: int) -> None:
    async with serving() as channel:
        path, request = f"/{SERVICE}/Classify", b"\xff" * size
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        stream: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(path)
        for call in (unary(request), stream(iter([request]))):
            failure = await refusal(call)
            assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_silent_and_a_slow_caller_are_given_up() -> None:
    async with serving(limits=FrameLimits(message_seconds=0.1, idle_seconds=0.1)) as channel:
        over = asyncio.Event()

        async def silent() -> AsyncIterator[bytes]:
            await over.wait()
            yield b""

        for method in ("Classify", "ClassifyStream"):
            call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/{method}")
            failure = await refusal(call(silent()))
            assert failure.code() is grpc.StatusCode.UNAVAILABLE
        over.set()


async def test_only_so_many_requests_may_be_slow() -> None:
    async with serving(limits=FrameLimits(message_seconds=30.0, slow_reads=1)) as channel:
        over = asyncio.Event()

        async def late() -> AsyncIterator[bytes]:
            await over.wait()
            yield pb.ClassifyRequest(task="late").SerializeToString()

        call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Classify")
        calls = [call(late()) for _ in range(3)]
        await asyncio.sleep(1.5)
        over.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        codes = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2


def test_parts_are_counted_before_anything_is_made_of_them() -> None:
    """A message of millions of empty ciphertexts, two bytes each."""
    flood = b"\x1a\x00" * 4_000_000
    raw = b"\x22" + _varint(len(flood)) + flood
    assert len(pb.ClassifyRequest.FromString(raw[:1] + _varint(20) + flood[:20]).query.ciphertexts) == 10
    with pytest.raises(InvalidInputError, match="too many parts"):
        parse(pb.ClassifyRequest, raw)
    for flat in (b"\x08\x01", b"\x0a\x00", b"\x9a\x06\x00"):
        with pytest.raises(InvalidInputError, match="too many parts"):
            parse(pb.ClassifyRequest, flat * (MAX_PARTS + 1))


def test_a_large_honest_message_is_read() -> None:
    query = {"ciphertexts": [{"seed": bytes(64), "words": bytes(100)}] * 1000}
    request = pb.ClassifyRequest(task="t", query=query)  # type: ignore[arg-type]
    assert parse(pb.ClassifyRequest, request.SerializeToString()) == request
    assert MAX_PARTS > 1000


@pytest.mark.parametrize("damage", [b"\x0b", b"\x0f", b"\x22\xff\xff\xff\xff\x0f", b"\x80" * 20, b"\x09"])
def test_truncated_and_unknown_forms(damage: bytes) -> None:
    with pytest.raises(InvalidInputError, match="Error parsing message"):
        parse(pb.ClassifyRequest, pb.ClassifyRequest(task="x" * 3 * MAX_PARTS).SerializeToString() + damage)


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


async def test_what_comes_in_time_counts_though_the_loop_was_busy() -> None:
    """The timer is due while the loop is blocked, and so is the message: the message came first."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        loop = asyncio.get_running_loop()

        def send_and_block() -> None:
            far.send(b"here")
            time.sleep(0.4)

        loop.call_later(0.05, send_and_block)
        with Within(0.2, lambda: UnavailableError("the client sent nothing")):
            assert await loop.sock_recv(near, 4) == b"here"


async def test_a_busy_loop_does_not_wait_for_ever() -> None:
    started = time.monotonic()
    asyncio.get_running_loop().call_later(0.05, time.sleep, 0.3)
    with pytest.raises(UnavailableError), Within(0.1, lambda: UnavailableError("the client sent nothing")):
        await asyncio.Event().wait()
    assert time.monotonic() - started < 5.0
