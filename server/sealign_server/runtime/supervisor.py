"""Workers on one port: one that dies is replaced while the others serve."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic, sleep

import structlog

from sealign.app.logs import configure_logs, direct_stderr
from sealign.errors import UnavailableError
from sealign_server.observe import forget_worker
from sealign_server.runtime.worker import Addresses, run_worker
from sealign_server.settings import ServeSettings

_log = structlog.get_logger()

_DEATHS = 5
_DEATH_SECONDS = 60.0


class _Workers:
    """The worker processes of one silo."""

    def __init__(self, directory: Path, settings: ServeSettings, addresses: Addresses, buckets: Path) -> None:
        # Spawned, not forked: gRPC's threads do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._arguments = (directory, settings.model_dump(), addresses, buckets)
        self._deaths: list[float] = []
        self.running: list[BaseProcess] = []
        self.stopping = False

    def start(self) -> None:
        """Start one more."""
        worker = self._context.Process(target=_work, args=self._arguments)
        # Ignored, it stays so in the new process, which SIGHUP would end before that has learned what to do.
        previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with direct_stderr():
            worker.start()
        signal.signal(signal.SIGHUP, previous)
        self.running.append(worker)
        if self.stopping and worker.pid is not None:  # a signal came meanwhile
            os.kill(worker.pid, signal.SIGTERM)

    def stop(self, signum: int, _: object) -> None:
        """Ask all to stop, once: a second signal would kill a worker that is on its way out."""
        if self.stopping:
            return
        self.stopping = True
        for worker in self.running:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signum)

    def reload(self, signum: int, _: object) -> None:
        """Pass on that files have changed."""
        for worker in self.running:
            if worker.pid is not None and worker.is_alive():
                os.kill(worker.pid, signum)

    def replace_dead(self) -> None:
        """Start a worker for each that has ended unasked.

        Raises:
            UnavailableError: they die faster than it makes sense to replace them.
        """
        for worker in [worker for worker in self.running if not worker.is_alive()]:
            self.running.remove(worker)
            if worker.pid is not None:
                forget_worker(worker.pid)
            if self.stopping:
                continue
            now = monotonic()
            self._deaths = [death for death in self._deaths if now - death < _DEATH_SECONDS] + [now]
            _log.error("worker ended unexpectedly", pid=worker.pid, status=worker.exitcode)
            if len(self._deaths) > _DEATHS:
                raise UnavailableError(
                    f"{len(self._deaths)} worker processes ended unexpectedly within {_DEATH_SECONDS:.0f} s; the log "
                    "says why"
                )
            sleep(0.1 * 2 ** len(self._deaths))
            if not self.stopping:
                self.start()


def supervise(directory: Path, settings: ServeSettings, addresses: Addresses, buckets: Path) -> None:
    """Run workers until a signal comes; then stop all.

    Raises:
        UnavailableError: workers keep dying.
    """
    workers = _Workers(directory, settings, addresses, buckets)
    signal.signal(signal.SIGTERM, workers.stop)
    signal.signal(signal.SIGINT, workers.stop)
    signal.signal(signal.SIGHUP, workers.reload)
    for _ in range(settings.workers):
        if not workers.stopping:
            workers.start()
    try:
        while not workers.stopping:
            multiprocessing.connection.wait([worker.sentinel for worker in workers.running], timeout=1.0)
            workers.replace_dead()
    finally:
        workers.stop(signal.SIGTERM, None)
        for worker in workers.running:
            worker.join()


def _work(directory: Path, settings: dict[str, object], addresses: Addresses, buckets: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor forwards what it gets
    restored = ServeSettings.model_validate(settings)
    configure_logs(restored.log_level)
    asyncio.run(run_worker(directory, restored, addresses, buckets))
