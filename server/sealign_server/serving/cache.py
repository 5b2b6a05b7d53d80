"""A cache in which nobody can evict what another has below its fair share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class FairCache(Generic[_Value]):
    """Values by owner and key, bounded in bytes; safe to use from several threads.

    Beyond the bound, the owner that holds most loses its least recently used value. So of n owners, one that holds
    less than an nth of the bytes loses nothing, whatever others do.

    Args:
        capacity: bytes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[str, OrderedDict[Hashable, tuple[_Value, int]]] = {}
        self._bytes: dict[str, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def bytes_of(self, owner: str) -> int:
        """Return the bytes that an owner holds."""
        return self._bytes.get(owner, 0)

    def get(self, owner: str, key: Hashable) -> _Value | None:
        """Return a value and make it the owner's most recent; None if it is not held."""
        with self._lock:
            held = self._held.get(owner)
            if held is None or key not in held:
                return None
            held.move_to_end(key)
            return held[key][0]

    def put(self, owner: str, key: Hashable, value: _Value, size: int) -> None:
        """Hold a value, in place of an earlier one; a value larger than everything is held alone."""
        with self._lock:
            self._drop(owner, key)
            self._held.setdefault(owner, OrderedDict())[key] = value, size
            self._bytes[owner] = self._bytes.get(owner, 0) + size
            while sum(self._bytes.values()) > self._capacity and sum(map(len, self._held.values())) > 1:
                largest = max(self._bytes, key=self._bytes.__getitem__)
                self._drop(largest, next(iter(self._held[largest])))

    def drop(self, owner: str, key: Hashable) -> None:
        """Stop holding a value."""
        with self._lock:
            self._drop(owner, key)

    def recent(self) -> list[_Value]:
        """Return the most recent value of each owner."""
        with self._lock:
            return [next(reversed(held.values()))[0] for held in self._held.values()]

    def _drop(self, owner: str, key: Hashable) -> None:
        held = self._held.get(owner)
        if held is None or key not in held:
            return
        _, size = held.pop(key)
        self._bytes[owner] -= size
        if not held:
            del self._held[owner], self._bytes[owner]
