"""A silo under load, d=768 and C=4, single queries over TLS: capacity, half of it, and four times as much.

Usage: python -m tests.benchmarks.bench_load [seconds] [workers]

h2load (Debian: nghttp2-client) sends one encrypted query again and again over eight connections. It is written in C and
takes little of the cores that it shares with the silo. First it keeps 32 calls under way (closed loop), which gives the
capacity. Then calls begin at a fixed rate (open loop), whatever becomes of those before. How many were answered says
the silo's own counter. h2load does not know gRPC's statuses: a caller with gRPC's own client sends 50 calls a second
beside it, and tells how they end and when.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import grpc
import numpy as np
import psutil  # type: ignore[import-untyped]

from sealign.protocol import RowKind
from sealign.protocol.conversions.alignment import space_from_wire
from sealign.protocol.v1.alignment_pb2 import DescribeSpaceRequest
from tests.benchmarks.bench_service import DIMENSION, FixedEncoder, cpu_seconds, make_silo, unit_rows
from tests.support.metrics import samples
from tests.support.processes import Server, command, serving
from tests.support.wire import RawClient, Stubs

CONNECTIONS, UNDER_WAY, DEADLINE, BESIDE = 8, 32, 1.0, 50
METHOD = "/sealign.v1.Classification/Classify"
ANSWERED = ("sealign_requests_total", "OK", "Classify")


@dataclass
class Outcome:
    """How calls ended, and after how many milliseconds, by status."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def watch(self, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], request: bytes) -> None:
        """Send a call and note how it ends."""
        started, status = perf_counter(), "OK"
        try:
            await call(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        self.milliseconds[status].append((perf_counter() - started) * 1e3)

    def line(self) -> str:
        """Return the part, the median and the 99th percentile of each status."""
        parts, count = [], sum(map(len, self.milliseconds.values()))
        for status, times in sorted(self.milliseconds.items()):
            p50, p99 = np.percentile(times, (50, 99))
            parts.append(f"{status} {len(times) / count:.0%}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        return "; ".join(parts)


@dataclass(frozen=True)
class Bench:
    """A silo, and one request that it is asked.

    Attributes:
        silo: serves on this machine, with its metrics.
        address: of the silo.
        authority: PEM of who signed its certificate.
        directory: for the body that h2load sends.
    """

    silo: Server
    address: str
    authority: bytes
    directory: Path

    def query(self) -> bytes:
        """Return a request whose key the silo knows."""
        credentials = grpc.ssl_channel_credentials(self.authority)
        with grpc.secure_channel(self.address, credentials) as channel:
            card = FixedEncoder.card.fingerprint
            stubs = Stubs.of(channel)
            asked = DescribeSpaceRequest(space="embeddings", encoder=card, dimension=DIMENSION)
            space = space_from_wire(stubs.alignment.DescribeSpace(asked, timeout=60))
            raw = RawClient.meet(stubs, RowKind(card, space.maps[0].id))
            return raw.request(unit_rows(1), with_key=True).SerializeToString()

    def h2load(self, request: bytes, seconds: float, *options: str) -> subprocess.Popen[bytes]:
        """Start to send a request again and again."""
        body = self.directory / "body"
        body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)  # gRPC's frame: not compressed, length
        headers = ("content-type: application/grpc", "te: trailers", f"grpc-timeout: {DEADLINE:g}S")
        words = [
            *("h2load", "--threads=1", f"--clients={CONNECTIONS}", f"--duration={round(seconds)}", *options),
            *(f"--data={body}", *(f"--header={header}" for header in headers), f"https://{self.address}{METHOD}"),
        ]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def load(self, name: str, request: bytes, seconds: float, *options: str) -> float:
        """Print what becomes of a load, and return how many calls a second were answered."""
        own = [("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(self.authority)
        outcome, calls = Outcome(), set()
        async with grpc.aio.secure_channel(self.address, credentials, options=own) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            await call(request, timeout=60)
            before, cpu, started = samples(self.silo)[ANSWERED], cpu_seconds(self.silo), perf_counter()
            generator = self.h2load(request, seconds, *options)
            taken = 0.0
            while generator.poll() is None:
                calls.add(asyncio.create_task(outcome.watch(call, request)))
                await asyncio.sleep(max(0.0, started + len(calls) / BESIDE - perf_counter()))
                times = psutil.Process(generator.pid).cpu_times()
                taken = max(taken, times.user + times.system)
            await asyncio.gather(*calls)
            seconds = perf_counter() - started
        answered = samples(self.silo)[ANSWERED] - before
        cost = (cpu_seconds(self.silo) - cpu) / answered * 1e3
        print(
            f"{name}: answered {answered / seconds:.0f}/s, silo's CPU {cost:.2f} ms each, h2load's "
            f"{taken / seconds:.0%} of a core; a caller beside it: {outcome.line()}",
            flush=True,
        )
        return answered / seconds

    async def measure(self, seconds: float) -> None:
        """Print all loads."""
        request = self.query()

        async def opened(name: str, rate: float, seconds: float) -> float:
            options = (f"--rps={rate / CONNECTIONS:.0f}", f"--max-concurrent-streams={round(rate)}")
            return await self.load(f"{name}, {rate:.0f}/s", request, seconds, *options)

        streams = f"--max-concurrent-streams={UNDER_WAY // CONNECTIONS}"
        await self.load("warm-up", request, 2.0, streams)
        capacity = await self.load(f"{UNDER_WAY} under way", request, seconds, streams)
        for factor in (0.5, 4.0):
            await opened(f"{factor:g} times that", factor * capacity, seconds)
        await asyncio.sleep(2.0)
        await opened("half of it again, 2 s after the flood", 0.5 * capacity, 4.0)


def main(seconds: float, workers: int) -> None:
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed; apt-get install nghttp2-client")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_silo(work / "silo")
        assert command("sealign-server", "certificates", work / "tls", "--host", "localhost").returncode == 0
        tls = ("--tls-cert", work / "tls" / "silo.pem", "--tls-key", work / "tls" / "silo.key")
        limits = ("--max-rows-per-day", 10**9, "--metrics-listen", "127.0.0.1:0")
        options = ("serve", work / "silo", "--listen", "127.0.0.1:0", "--workers", workers, *tls, *limits)
        silo = stack.enter_context(serving("sealign-server", *options, log=work / "silo.log", workers=workers))
        bench = Bench(silo, f"localhost:{silo.port}", (work / "tls" / "ca.pem").read_bytes(), work)
        print(f"{workers} workers, {os.cpu_count()} cores shared with the generator, {seconds:g} s each", flush=True)
        asyncio.run(bench.measure(seconds))


if __name__ == "__main__":
    main(
        float(sys.argv[1]) if len(sys.argv) > 1 else 20.0,
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
    )
