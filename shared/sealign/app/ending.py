"""How a call ended, for the layers of a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sealign.errors import SealignError


@dataclass
class Ending:
    """How a call ended.

    Attributes:
        status: the name of gRPC's.
        code: the stable code of an error; else as the status.
    """

    status: str = "OK"
    code: str = "OK"

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note how what is enclosed ends; what it raises passes."""
        try:
            yield
        except SealignError as error:
            self.status, self.code = error.status, error.code
            raise
        except asyncio.CancelledError:
            self.status = self.code = "CANCELLED"
            raise
        except BaseException:
            self.status = self.code = "INTERNAL"
            raise
