"""Items of a slow iterable, drawn while earlier ones are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Condition, Thread
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Feed(Generic[_T]):
    """An iterable's items, drawn by a thread of its own, so that whoever waits for the next one can do other work.

    Args:
        items: may block, as a terminal or a pipe does.
        ahead: maximum number of items that are drawn before they are taken.
    """

    def __init__(self, items: Iterable[_T], ahead: int) -> None:
        self._items = items
        self._ahead = ahead
        self._drawn: deque[_T] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._changed = Condition()
        Thread(target=self._draw, name="sealign-feed", daemon=True).start()

    def take(self, most: int) -> list[_T]:
        """Wait for an item, and return those that are there, at most ``most``; none at the end.

        Raises:
            Exception: what the iterable raised, once everything before has been taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._drawn or self._ended)
            if not self._drawn and self._error is not None:
                raise self._error
            taken = [self._drawn.popleft() for _ in range(min(most, len(self._drawn)))]
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Draw no more; whoever waits gets none."""
        with self._changed:
            self._drawn.clear()
            self._ended = True
            self._changed.notify_all()

    def _draw(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._drawn) < self._ahead or self._ended)
                    if self._ended:
                        return
                    self._drawn.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever takes
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
