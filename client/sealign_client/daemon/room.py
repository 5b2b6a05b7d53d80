"""How many texts may wait at the daemon."""

from __future__ import annotations

from sealign.errors import OverloadedError
from sealign_client.client import AsyncClient

MAX_WAITING = 1 << 14
"""Texts that wait to be embedded; further callers are told to come back."""


def require_room(client: AsyncClient, texts: int) -> None:
    """Refuse more texts than can wait; a call that is alone may be larger.

    Raises:
        OverloadedError: too many texts wait already.
    """
    waiting = client.classifier.waiting
    if waiting and waiting + texts > MAX_WAITING:
        raise OverloadedError(f"{waiting} texts wait at the daemon. Try again later.", retry_after=1.0)
