"""Peers that harm a silo's other clients: half-open connections, slow senders, forgotten streams, ping floods."""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from hpack import Encoder

from sealign.protocol.v1.classification_pb2_grpc import ClassificationStub
from tests.support.processes import environment
from tests.support.silo import Tls

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_HEADERS = 4
_PATH = "/sealign.v1.Classification/Classify"

Nuisance = Callable[["Attacker"], Awaitable[None]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return an HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Attacker:
    """Connections of one attacker, who has a certificate of its own.

    Args:
        port: of the silo.
        authority: that has signed the silo's certificate.
        certificate, key: the attacker's.
    """

    def __init__(self, port: int, authority: Path, certificate: Path, key: Path) -> None:
        self.port = port
        self.files = (authority, key, certificate)
        self.context = ssl.create_default_context(cafile=str(authority))
        self.context.load_cert_chain(certificate, key)
        self.context.set_alpn_protocols(["h2"])
        self.cut = 0
        """Connections that the silo has ended."""

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection up to HTTP/2's first frame."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.context, server_hostname="localhost"
        )
        writer.write(_PREFACE + frame(_SETTINGS, 0, 0))
        await writer.drain()
        return reader, writer

    def watch(self, reader: asyncio.StreamReader) -> asyncio.Task[None]:
        """Note when the silo ends a connection."""

        async def until_end() -> None:
            with suppress(OSError):
                while await reader.read(65536):
                    pass
            self.cut += 1

        return asyncio.create_task(until_end())


async def half_open(attacker: Attacker) -> None:
    """200 connections on which nothing is ever sent."""
    ends = [await asyncio.open_connection("127.0.0.1", attacker.port) for _ in range(200)]
    watched = [attacker.watch(reader) for reader, _ in ends]
    try:
        await asyncio.sleep(3600)
    finally:
        for task in watched:
            task.cancel()
        for _, writer in ends:
            writer.close()


async def slow_senders(attacker: Attacker) -> None:
    """40 requests of which a byte comes each second."""
    headers = Encoder().encode(
        [
            (":method", "POST"), (":scheme", "https"), (":path", _PATH), (":authority", "localhost"),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]
    )  # fmt: skip

    async def send() -> None:
        reader, writer = await attacker.connected()
        watched = attacker.watch(reader)
        try:
            writer.write(frame(_HEADERS, _END_HEADERS, 1, headers) + frame(_DATA, 0, 1, b"\0\0\0\x40\0"))
            while not watched.done():
                writer.write(frame(_DATA, 0, 1, b"\x0a"))
                await writer.drain()
                await asyncio.sleep(1.0)
        except OSError:
            attacker.cut += 1
        finally:
            watched.cancel()
            writer.close()

    await asyncio.gather(*(send() for _ in range(40)))


async def ping_flood(attacker: Attacker) -> None:
    """8 connections that send pings as fast as they are taken, and connect again a second after they are cut."""

    async def flood() -> None:
        while True:
            with suppress(OSError):
                reader, writer = await attacker.connected()
                watched = attacker.watch(reader)
                try:
                    while not watched.done():
                        writer.write(frame(_PING, 0, 0, bytes(8)) * 64)
                        await writer.drain()
                        await asyncio.sleep(0)
                finally:
                    writer.close()
                    await watched
            await asyncio.sleep(1.0)

    await asyncio.gather(*(flood() for _ in range(8)))


async def forgotten_streams(attacker: Attacker) -> None:
    """As many open streams as the silo takes, on which nothing follows."""

    async def nothing() -> AsyncIterator[Any]:
        await asyncio.sleep(3600)
        return
        yield

    async def forget() -> None:
        credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in attacker.files))
        async with grpc.aio.secure_channel(f"localhost:{attacker.port}", credentials) as channel:
            calls = [ClassificationStub(channel).ClassifyStream(nothing()) for _ in range(200)]
            for call in calls:
                await call.wait_for_connection()
            await asyncio.sleep(3600)

    await forget()


NUISANCES: tuple[Nuisance, ...] = (half_open, slow_senders, ping_flood, forgotten_streams)


@contextmanager
def suffering(nuisance: Nuisance, port: int, tls: Tls) -> Iterator[list[int]]:
    """Let an attacker do something while inside, in a process of its own that gives way to others.

    Yields a list that holds the number of connections that the silo has cut, at the end.
    """
    identity = tls.authority.issue("attacker", "attacker")
    files = (tls.authority.certificate, identity.certificate, identity.key)
    command = [sys.executable, "-m", "tests.load.nuisances", nuisance.__name__, str(port), *map(str, files)]
    cut: list[int] = []
    with subprocess.Popen(
        ["nice", "-n", "19", *command], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield cut
        finally:
            process.send_signal(signal.SIGINT)
            cut.append(int(process.stdout.readline() or b"0"))
            process.kill()


async def main(nuisance: Nuisance, attacker: Attacker) -> None:
    """Do it until SIGINT, then say how many connections were cut."""
    task = asyncio.ensure_future(nuisance(attacker))
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    print("begun", flush=True)
    with suppress(asyncio.CancelledError, OSError):
        await task
    print(attacker.cut, flush=True)


if __name__ == "__main__":
    chosen = next(nuisance for nuisance in NUISANCES if nuisance.__name__ == sys.argv[1])
    asyncio.run(main(chosen, Attacker(int(sys.argv[2]), *map(Path, sys.argv[3:]))))
