"""A wire tap: ends TLS on both sides and keeps every byte that passes, and reads HTTP/2 and gRPC from them."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from hpack import Decoder

from tests.support.certificates import Authority, Identity

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_PADDED, _PRIORITY = 0x08, 0x20
_CHUNK = 1 << 16


@dataclass
class Connection:
    """Plain bytes of one connection, both ways."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


@dataclass
class Call:
    """One gRPC call as it crossed the wire."""

    request_headers: dict[str, str] = field(default_factory=dict)
    reply_headers: dict[str, str] = field(default_factory=dict)
    request_data: bytearray = field(default_factory=bytearray)
    reply_data: bytearray = field(default_factory=bytearray)

    @property
    def method(self) -> str:
        return self.request_headers[":path"].rpartition("/")[2]

    @property
    def requests(self) -> list[bytes]:
        return list(_messages(self.request_data))

    @property
    def replies(self) -> list[bytes]:
        return list(_messages(self.reply_data))


class Tap:
    """What passed between a client and a silo."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections: list[Connection] = []

    @property
    def plaintext(self) -> bytes:
        """Every byte, both ways."""
        return b"".join(bytes(c.sent) + bytes(c.received) for c in self.connections)

    @property
    def calls(self) -> list[Call]:
        """All gRPC calls in the order of their streams."""
        return [call for connection in self.connections for call in _calls(connection)]


@contextmanager
def tapping(address: str, authority: Authority, front: Identity, back: Identity) -> Iterator[Tap]:
    """Listen with the certificate ``front``, pass on to ``address`` with the certificate ``back``."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(front.certificate, front.key)
    connecting = ssl.create_default_context(cafile=str(authority.certificate))
    connecting.load_cert_chain(back.certificate, back.key)
    for context in (listening, connecting):
        context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")

    async def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connection = Connection()
        tap.connections.append(connection)
        silo, to_silo = await asyncio.open_connection(host, int(port), ssl=connecting, server_hostname="localhost")
        try:
            both = _pass_on(client, to_silo, connection.sent), _pass_on(silo, to_client, connection.received)
            await asyncio.gather(*both)
        finally:
            for writer in (to_silo, to_client):
                writer.transport.abort()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0, ssl=listening))
    tap = Tap(server.sockets[0].getsockname()[1])
    thread = Thread(target=loop.run_forever, name="tap")
    thread.start()
    try:
        yield tap
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, record: bytearray) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            record += chunk
            target.write(chunk)
            await target.drain()
    except (ConnectionError, ssl.SSLError):
        pass  # one side hung up
    finally:
        target.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _calls(connection: Connection) -> list[Call]:
    calls: dict[int, Call] = {}
    assert connection.sent.startswith(_PREFACE)
    for data, is_request in ((connection.sent[len(_PREFACE) :], True), (connection.received, False)):
        decoder = Decoder()
        block, block_stream = b"", 0
        for kind, flags, stream, payload in _frames(bytes(data)):
            call = calls.setdefault(stream, Call())
            if kind == _DATA:
                (call.request_data if is_request else call.reply_data).extend(_unpadded(payload, flags))
            elif kind in (_HEADERS, _CONTINUATION):
                if kind == _HEADERS:
                    payload = _unpadded(payload, flags)
                    block, block_stream = payload[5:] if flags & _PRIORITY else payload, stream
                else:
                    block += payload
                if flags & 0x04:
                    headers = call.request_headers if is_request else call.reply_headers
                    assert block_stream == stream
                    headers.update({str(name): str(value) for name, value in decoder.decode(block)})
    return [calls[stream] for stream in sorted(calls) if stream]


def _frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each frame (RFC 9113, section 4.1)."""
    at = 0
    while at + 9 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", data, at + 3)
        yield kind, flags, stream & 0x7FFFFFFF, data[at + 9 : at + 9 + size]
        at += 9 + size


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


def _messages(data: bytearray) -> Iterator[bytes]:
    """Length-prefixed messages; none is compressed."""
    at = 0
    while at < len(data):
        compressed, size = struct.unpack_from(">BI", data, at)
        assert not compressed
        yield bytes(data[at + 5 : at + 5 + size])
        at += 5 + size
