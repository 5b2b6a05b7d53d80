"""A TCP relay in front of a silo that cuts connections where a test wants it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes bytes on to a port of this machine.

    Args:
        target: port to pass on to.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.next_target: int | None = None
        self.cuts = 0
        self._limits: dict[str, int] = {}
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def cut_after(self, **limits: int) -> None:
        """Cut the connection once, after so many bytes ``sent`` by the client or ``received`` by it."""
        self._limits = limits

    def cut(self) -> None:
        """Cut all connections now."""
        self.cuts += 1
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                silo = self._connected()
                if silo is None:
                    client.close()
                    continue
                self._open += [client, silo]
                for name, pair in (("sent", (client, silo)), ("received", (silo, client))):
                    threading.Thread(target=self._pass, args=(name, *pair), daemon=True).start()

    def _connected(self) -> socket.socket | None:
        for port in (self.target, self.next_target):
            if port:
                with suppress(OSError):
                    return socket.create_connection(("127.0.0.1", port))
        return None

    def _pass(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(16384):
                passed += len(data)
                if name in self._limits and passed > self._limits[name]:
                    self._limits = {}
                    self.cuts += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
