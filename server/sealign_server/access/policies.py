"""The policy in force: policy.toml as it is now, or as it was when it last could be used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from sealign.app.stamps import stamp_of
from sealign.errors import InvalidInputError
from sealign_server.access.policy import Policy

_log = structlog.get_logger()

_REFRESH_SECONDS = 0.5


class Policies:
    """Holds the policy in force.

    Args:
        file: policy.toml; it may appear later.
        built_in: policy until there is one.

    Raises:
        InvalidInputError: the file cannot be used.
    """

    def __init__(self, file: Path, built_in: Policy) -> None:
        self._file = file
        self._seen = stamp_of(file)
        self.current = built_in if self._seen is None else Policy.load(file)

    def reload(self) -> bool:
        """Read the file if it has changed, and return whether another policy is in force; a bad one is logged."""
        stamp = stamp_of(self._file)
        if stamp == self._seen:
            return False
        self._seen, before = stamp, self.current.digest
        try:
            self.current = Policy.load(self._file)
        except InvalidInputError as error:
            _log.error("the new policy cannot be used; the earlier one stays", reason=str(error))
        if self.current.digest == before:
            return False
        _log.info("policy reloaded", digest=self.current.digest)
        return True

    async def keep_current(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Look for changes twice a second; never returns.

        Args:
            changed: is called when another policy is in force.
        """
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            if self.reload():
                await changed()
