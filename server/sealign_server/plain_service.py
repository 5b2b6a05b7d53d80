"""Plain alignment as a call: header, rows, and the card of the map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog

from sealign.errors import InvalidInputError, OverloadedError, SealignError
from sealign.protocol import MapCard
from sealign.protocol.conversions import map_to_wire
from sealign.protocol.v1 import silo_pb2 as pb
from sealign_server.alignment import AlignmentSession
from sealign_server.callers import within

_log = structlog.get_logger()

Described = Callable[[str], MapCard | None]
"""The card of the map that is served to an encoder, named by fingerprint."""


class PlainAlignments:
    """Answers calls of Align and AlignStates, one at a time.

    Args:
        begin: given a request's header, a session that keeps its map, and how the silo describes that.
        seconds: how long to wait for a client's next rows.
    """

    def __init__(self, begin: Callable[[Any], tuple[AlignmentSession, Described]], seconds: float) -> None:
        self._begin = begin
        self._seconds = seconds
        self._aligning = asyncio.Lock()

    async def answer(self, requests: AsyncIterator[Any]) -> pb.AlignReply:
        """The reply to one call.

        Raises:
            OverloadedError: another alignment is under way.
            UnavailableError: the client sent nothing for too long.
            InvalidInputError: no header, or rows that cannot be aligned; an earlier map stays.
            SealignError: the map was learned, and cannot be served.
        """
        if self._aligning.locked():
            raise OverloadedError("the silo is aligning another client; try again in a minute")
        async with self._aligning:
            requests = within(requests, self._seconds)
            first = await anext(requests, None)
            if first is None or first.WhichOneof("part") != "header":
                raise InvalidInputError("an alignment must begin with a header: encoder, public set, number of rows")
            session, described = await asyncio.to_thread(self._begin, first.header)
            async for request in requests:
                await asyncio.to_thread(session.add, request.rows.values)
            learned = await asyncio.to_thread(session.learn)
            card = await asyncio.to_thread(described, learned.source_fingerprint)
        _log.info(
            "map learned",
            target=session.target,
            encoder=learned.source_fingerprint[:12],
            public_set=learned.public_set[:12],
            rows=learned.quality.rows,
            explained_variance=round(learned.quality.explained_variance, 4),
        )
        if card is None:
            raise SealignError("the map was learned but could not be read back; the silo's log says why")
        return pb.AlignReply(map=map_to_wire(card))
