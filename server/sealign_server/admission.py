"""How much work is under way at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sealign.errors import OverloadedError


class Admission:
    """Refuses work beyond what may be under way at once, rather than queue it.

    Args:
        most: products at once.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._products = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """While a product is computed.

        Raises:
            OverloadedError: too many are already.
        """
        if self._products >= self._most:
            raise OverloadedError(f"the silo has {self._products} products under way already; try again later")
        self._products += 1
        try:
            yield
        finally:
            self._products -= 1
