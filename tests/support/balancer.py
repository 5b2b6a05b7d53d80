"""A balancer in front of replicas of a silo: each call goes to the next replica, whatever came before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from threading import Event, Thread
from types import TracebackType
from typing import Any

import grpc

from tests.support.certificates import Authority, Identity

_PASSED_ON = ("authorization", "x-request-id", "traceparent")


class Balancer:
    """Ends TLS, and passes calls on in turn, byte for byte; it knows nothing of a replica's health.

    Args:
        targets: ports of the replicas; a test may replace the list.
        authority: that has signed the certificate of the replicas, whose name is localhost.
        identity: certificate to show to clients.
    """

    def __init__(self, targets: list[int], authority: Authority, identity: Identity) -> None:
        self.targets = targets
        self.port = 0
        self.calls: list[tuple[str, int]] = []
        """Method and port of each call."""
        self._credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        pair = (identity.key.read_bytes(), identity.certificate.read_bytes())
        self._front = grpc.ssl_server_credentials([pair])
        self._turns = count()
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._listening, self._ending = Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    async def _serve(self) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((_Every(self),))
        self.port = server.add_secure_port("127.0.0.1:0", self._front)
        await server.start()
        self._listening.set()
        await self._ending.wait()
        await server.stop(0)
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, port: int) -> grpc.aio.Channel:
        if port not in self._channels:
            options = [
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ]
            self._channels[port] = grpc.aio.secure_channel(f"localhost:{port}", self._credentials, options)
        return self._channels[port]

    async def pass_on(self, method: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Pass a call on to the replica whose turn it is, and its replies back."""
        port = self.targets[next(self._turns) % len(self.targets)]
        self.calls.append((method.rpartition("/")[2], port))
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if key in _PASSED_ON]
        multi: Any = self._channel(port).stream_stream(method)
        call = multi(requests, metadata=metadata, timeout=context.time_remaining())
        try:
            async for reply in call:
                yield reply
        except grpc.aio.AioRpcError as error:
            trailers = tuple((key, value) for key, value in error.trailing_metadata() or ())
            await context.abort(error.code(), error.details() or "", trailers)
        finally:
            with suppress(Exception):
                call.cancel()


class _Every(grpc.GenericRpcHandler):
    """Handles every method."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)

        async def behaviour(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for reply in self._balancer.pass_on(method, requests, context):
                yield reply

        return grpc.stream_stream_rpc_method_handler(behaviour)
