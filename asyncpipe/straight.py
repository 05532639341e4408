"""Receive a body straight from its connection into a block of ours, past aiohttp's parser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

LEAST = 256 * 1024
"""Shorter bodies are mostly there by the time their head is read."""


class Straight(asyncio.BufferedProtocol):
    """The rest of a body whose length is known, instead of aiohttp's own protocol.

    aiohttp copies each piece twice on its way and allocates both: more than sha256 costs. Between
    head and end nothing is left to parse, so the connection's bytes go to ``receive``'s room. At
    the end aiohttp has its connection back, as if it had read the body; a connection that is lost
    before is told to it, and the error is the one that it raises.
    """

    def __init__(
        self, stream: aiohttp.StreamReader, protocol: ResponseHandler, transport: asyncio.Transport
    ) -> None:
        self._stream, self._protocol, self._transport = stream, protocol, transport
        self._clock = asyncio.get_running_loop().time
        self._room = memoryview(b"")
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self.got, self.heard = 0, self._clock()
        """Bytes received, and the loop's time as the last ones came."""

    @classmethod
    def of(cls, response: aiohttp.ClientResponse) -> Self | None:
        """Take a response's connection over; None where aiohttp has to read on.

        All that it has received by now must have been read.
        """
        connection, stream = response.connection, response.content
        if connection is None or stream.is_eof() or "Transfer-Encoding" in response.headers:
            return None
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            return None
        protocol.pause_reading()  # this ends its read timeout, too
        straight = cls(stream, protocol, transport)
        transport.set_protocol(straight)
        return straight

    async def receive(self, room: memoryview) -> None:
        """Receive until ``room`` is full; raises what aiohttp does when the connection is lost.

        Cancelling leaves in ``got`` how much has come; receiving may go on with the rest of it.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        self._room = room
        if not self._lost:
            self._transport.resume_reading()
            await self._waiter
        if self._lost and self._room:
            raise self._stream.exception() or ConnectionError("the connection was lost")

    def give_back(self) -> None:
        """All has come: let the connection be used again."""
        if self._lost:
            return
        self._transport.set_protocol(self._protocol)
        self._transport.resume_reading()
        self._stream.feed_eof()

    # -- what the connection says ---------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """So many have come."""
        self._room = self._room[nbytes:]
        self.got += nbytes
        self.heard = self._clock()
        if not self._room:
            self._transport.pause_reading()
            self._wake()

    def eof_received(self) -> None:
        """Tell aiohttp that there will be no more; the connection is closed then."""
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp."""
        self._lost = True
        self._protocol.connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
