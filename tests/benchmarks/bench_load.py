"""A silo under load, d=768 and C=4, single queries over TLS: capacity, half of it, and four times as much.

Usage: python -m tests.benchmarks.bench_load [seconds] [workers]

The generator runs in this process, beside the silo, and sends one encrypted query again and again over eight
connections. First it keeps 32 calls under way (closed loop), which gives the capacity. Then calls begin at a fixed rate
(open loop), whatever becomes of those before.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter

import grpc
import numpy as np

from sealign.protocol import RowKind
from sealign.protocol.conversions.alignment import space_from_wire
from sealign.protocol.v1.alignment_pb2 import DescribeSpaceRequest
from tests.benchmarks.bench_service import DIMENSION, FixedEncoder, cpu_seconds, make_silo, unit_rows
from tests.support.processes import Server, command, serving
from tests.support.wire import RawClient, Stubs

CONNECTIONS, UNDER_WAY, DEADLINE = 8, 32, 1.0
METHOD = "/sealign.v1.Classification/Classify"

Send = Callable[[], Awaitable[object]]


@dataclass
class Outcome:
    """How calls ended, and after how many milliseconds, by status."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def watch(self, send: Send) -> None:
        """Send a call and note how it ends."""
        started, status = perf_counter(), "OK"
        try:
            await send()
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        self.milliseconds[status].append((perf_counter() - started) * 1e3)

    def line(self, seconds: float) -> str:
        """Return counts per second, with the median and the 99th percentile of each status."""
        parts = []
        for status, times in sorted(self.milliseconds.items()):
            p50, p99 = np.percentile(times, (50, 99))
            parts.append(f"{status} {len(times) / seconds:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "; ".join(parts)


async def closed(sends: list[Send], seconds: float) -> Outcome:
    """Keep calls under way for some seconds."""
    outcome, end, following = Outcome(), perf_counter() + seconds, cycle(sends)

    async def caller() -> None:
        while perf_counter() < end:
            await outcome.watch(next(following))

    await asyncio.gather(*(caller() for _ in range(UNDER_WAY)))
    return outcome


async def opened(sends: list[Send], rate: float, seconds: float) -> Outcome:
    """Begin calls at a rate for some seconds, and wait for the last."""
    outcome, started, following = Outcome(), perf_counter(), cycle(sends)
    calls: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, started + number / rate - perf_counter()))
        calls.add(asyncio.create_task(outcome.watch(next(following))))
    await asyncio.gather(*calls)
    return outcome


def query(address: str, authority: bytes) -> bytes:
    """Return a request whose key the silo knows."""
    credentials = grpc.ssl_channel_credentials(authority)
    with grpc.secure_channel(address, credentials) as channel:
        card = FixedEncoder.card.fingerprint
        stubs = Stubs.of(channel)
        asked = DescribeSpaceRequest(space="embeddings", encoder=card, dimension=DIMENSION)
        space = space_from_wire(stubs.alignment.DescribeSpace(asked, timeout=60))
        raw = RawClient.meet(stubs, RowKind(card, space.maps[0].id))
        return raw.request(unit_rows(1), with_key=True).SerializeToString()


async def measure(address: str, authority: bytes, request: bytes, silo: Server, seconds: float) -> None:
    """Print all three loads."""
    credentials = grpc.ssl_channel_credentials(authority)
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.secure_channel(address, credentials, options=own) for _ in range(CONNECTIONS)]

    def sender(channel: grpc.aio.Channel) -> Send:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        return lambda: call(request, timeout=DEADLINE)

    sends = [sender(channel) for channel in channels]
    await closed(sends, 2.0)
    cpu = cpu_seconds(silo)
    outcome = await closed(sends, seconds)
    cpu = cpu_seconds(silo) - cpu
    answered = len(outcome.milliseconds["OK"])
    capacity = answered / seconds
    print(f"{UNDER_WAY} under way: {outcome.line(seconds)}; silo's CPU {cpu / answered * 1e3:.2f} ms a query")
    for factor in (0.5, 4.0):
        outcome = await opened(sends, factor * capacity, seconds)
        print(f"{factor:g} times that, {factor * capacity:.0f}/s: {outcome.line(seconds)}")
    await asyncio.sleep(2.0)
    outcome = await opened(sends, 0.5 * capacity, 2.0)
    print(f"half of it again, 2 s after the flood: {outcome.line(2.0)}")
    for channel in channels:
        await channel.close()


def main(seconds: float, workers: int) -> None:
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_silo(work / "silo")
        assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
        tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
        options = ("serve", work / "silo", "--listen", "127.0.0.1:0", "--workers", str(workers), *tls)
        silo = stack.enter_context(serving("sealign-server", *options, log=work / "silo.log", workers=workers))
        authority, address = (work / "tls" / "ca.pem").read_bytes(), f"localhost:{silo.port}"
        print(f"{workers} workers, {os.cpu_count()} cores shared with the generator, {seconds:g} s each")
        asyncio.run(measure(address, authority, query(address, authority), silo, seconds))


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 20.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
    )
