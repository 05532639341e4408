"""A response's body, read no slower than a minimum speed and no further than a limit."""

from __future__ import annotations

import asyncio

import aiohttp

from asyncpipe.errors import DownloadError, MediaGone, TooLarge
from asyncpipe.providers.atlas_answer import retry_after_s
from asyncpipe.straight import LEAST, Straight

BLOCK = 2 * 1024 * 1024
"""Bytes of a large body that are received, hashed and written in one go."""

_READ_BUFFER = 256 * 1024
"""What aiohttp may hold of a body that it reads itself: a third faster than its own 64 KiB."""

_KEPT = 32
_GONE = frozenset({403, 404, 410})


class Blocks:
    """Memory for bodies, used again and again: fresh pages cost as much as what they are for.

    One that a thread may still read after its download was cancelled is not given back.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self) -> bytearray:
        """BLOCK bytes, whatever they hold."""
        return self._free.pop() if self._free else bytearray(BLOCK)

    def give(self, block: bytearray) -> None:
        """Nobody reads or writes it any more."""
        if len(self._free) < _KEPT:
            self._free.append(block)


class Body:
    """Read a body in large pieces.

    ``have`` of its bytes need not come, they are there. ``largest`` is the most there may be (None:
    no limit); ``slowest`` bytes/s are the least, over each ``window_s`` seconds spent waiting for
    the network: what the disk takes is not the server's fault. With ``blocks`` a long body is
    received straight into one of them.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        have: int,
        largest: int | None,
        slowest: float,
        window_s: float,
        blocks: Blocks | None = None,
    ) -> None:
        self._have = have
        self._response = response
        self._stream = response.content
        self._largest = largest
        self._slowest = slowest
        self._window_s = window_s
        self._waited_s, self._got = 0.0, 0
        self._pieces: list[bytes] = []
        self._blocks = blocks
        self._block: bytearray | None = None
        self._filled = self._end = 0
        self._straight: Straight | None = None
        self._begun = self._whole = False

    @property
    def have(self) -> int:
        """Bytes of the file up to the last one received."""
        return self._have + (self._straight.got if self._straight else 0)

    async def read(self, size: int) -> bytes | memoryview:
        """Read at least ``size`` bytes (at most BLOCK), less only at the end.

        Raises TooLarge, TimeoutError for a server that is too slow, and what aiohttp raises when a
        body breaks off; what had come by then is in ``rest``. A view is valid until the next read.
        """
        if self._blocks is not None and not self._begun:
            self._begun = True
            self._begin(self._blocks)
        if self._straight is not None:
            await self._fill(self._straight, size)
            return self.rest()
        enough = self.have + size
        while not self._whole and self.have < enough and await self._more():
            pass
        return self.rest()

    def rest(self) -> bytes | memoryview:
        """Hand over what was received and not returned yet."""
        if self._block is not None:
            view = memoryview(self._block)[: self._filled]
            self._filled = 0
            return view
        joined = b"".join(self._pieces)
        self._pieces.clear()
        return joined

    def give_back(self) -> None:
        """All was read, and written: let the block be used for another body."""
        if self._block is not None and self._blocks is not None:
            self._blocks.give(self._block)
            self._block = None

    def _begin(self, blocks: Blocks) -> None:
        """Receive past aiohttp from here on, where that is possible and worth it."""
        if self._stream.is_eof():  # most small ones: there with their head
            self._take(self._stream.read_nowait())
            self._whole = True
            return
        length = self._response.content_length
        self._end = self._have + (length or 0)
        if length is None or (self._largest is not None and self._end > self._largest):
            if hasattr(self._stream, "set_read_chunk_size"):  # aiohttp 3.12 has none
                self._stream.set_read_chunk_size(_READ_BUFFER)
            return
        if length < LEAST:
            return
        while piece := self._stream.read_nowait():
            self._take(piece)
        fits = sum(map(len, self._pieces)) < BLOCK
        if fits and self._have < self._end and (straight := Straight.of(self._response)):
            self._straight, self._block = straight, blocks.take()

    async def _fill(self, straight: Straight, size: int) -> None:
        """Receive up to ``size`` bytes into the block."""
        assert self._block is not None, "who goes straight has a block"
        block = memoryview(self._block)[:size]
        for piece in self._pieces:
            block[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
        self._pieces.clear()
        size = min(size, self._filled + self._end - self.have)
        straight.heard = asyncio.get_running_loop().time()
        while self._filled < size:
            await self._some(straight, block[self._filled : size])
        if size and self.have == self._end:
            straight.give_back()

    async def _some(self, straight: Straight, room: memoryview) -> None:
        """Receive into ``room`` until it is full or the speed is to be looked at."""
        clock = asyncio.get_running_loop().time
        asked, had = clock(), straight.got
        look = min(asked - self._waited_s, straight.heard) + self._window_s
        try:
            async with asyncio.timeout_at(look) as limit:
                await straight.receive(room)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._filled += straight.got - had
        if straight.heard + self._window_s <= clock() and len(room) > straight.got - had:
            raise TimeoutError(f"nothing came for {self._window_s:g} s")
        self._pace(clock() - asked, straight.got - had)

    async def _more(self) -> bool:
        """Receive a piece; False at the end."""
        clock = asyncio.get_running_loop().time
        asked = clock()
        piece = await self._stream.readany()
        self._take(piece)
        if piece:
            self._pace(clock() - asked, len(piece))
        return bool(piece)

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._have += len(piece)
        if self._largest is not None and self._have > self._largest:
            raise TooLarge(f"an output is larger than the {self._largest} bytes allowed")

    def _pace(self, waited_s: float, size: int) -> None:
        self._waited_s += waited_s
        self._got += size
        if self._waited_s < self._window_s:
            return
        if self._got < self._slowest * self._waited_s:
            raise TimeoutError(
                f"{self._got} bytes in {self._waited_s:.0f} s is slower than the "
                f"{self._slowest:g} bytes/s that count as alive"
            )
        self._waited_s, self._got = 0.0, 0


def check_answer(
    response: aiohttp.ClientResponse, accepted: tuple[int, ...], *, shown: str
) -> None:
    """Raise MediaGone or DownloadError for an answer that is none of ``accepted``.

    ``shown`` is its URL as messages show it.
    """
    if response.status in _GONE:
        raise MediaGone(f"{shown} answers {response.status}")
    if response.status not in accepted:
        wish_s = retry_after_s(response.headers)
        raise DownloadError(f"{shown} answers {response.status}", retry_after_s=wish_s)
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if response.status != 416 and coding not in ("", "identity"):
        raise DownloadError(f"{shown} answers in {coding!r}, though asked to leave it as it is")
