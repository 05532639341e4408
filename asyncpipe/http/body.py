"""A response's body, read no slower than a minimum speed and no further than a limit."""

from __future__ import annotations

import asyncio

import aiohttp

from asyncpipe.errors import DownloadError, MediaGone, TooLarge
from asyncpipe.http.coding import coding_of, unpacker
from asyncpipe.http.headers import retry_after_s

LARGE = 1024 * 1024
"""Bodies said to have so many bytes stay in the pieces they came in: to join those costs more than
to handle several. Of smaller ones it costs less."""

_GONE = frozenset({403, 404, 410})

_PASSING = frozenset({408, 421, 423, 425, 429, 499})
"""Client errors that say nothing of the URL."""


class Body:
    """Read a body in pieces, as they came; what is coded comes unpacked.

    ``have`` of its bytes need not come, they are there. ``largest`` is the most there may be (None:
    no limit); ``slowest`` bytes/s are the least, over each ``window_s`` seconds spent waiting for
    the network: what the disk takes is not the server's fault.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        have: int,
        largest: int | None,
        slowest: float,
        window_s: float,
    ) -> None:
        self.have = have
        self._stream = response.content
        self._packed = unpacker(coding_of(response.headers.get("Content-Encoding", "")))
        self._apart = (response.content_length or 0) >= LARGE
        self._largest = largest
        self._slowest = slowest
        self._window_s = window_s
        self._waited_s, self._got = 0.0, 0
        self._pieces: list[bytes] = []

    async def read(self, size: int) -> list[bytes]:
        """Read at least ``size`` bytes, less only at the end.

        Raises TooLarge, TimeoutError for a server that is too slow, and what aiohttp raises when a
        body breaks off; what had come by then is in ``rest``.
        """
        plain = not self._apart and self._packed is None
        if plain and self._stream.is_eof():  # most small ones: there with their head
            if piece := self._stream.read_nowait():
                self._take(piece)
            return self.rest()
        enough = self.have + size
        while self.have < enough and await self._more():
            pass
        return self.rest()

    def rest(self) -> list[bytes]:
        """Hand over what was received and not returned yet."""
        pieces, self._pieces = self._pieces, []
        return pieces

    async def _more(self) -> bool:
        """Receive a piece, or unpack more of the last; False at the end."""
        if self._packed is not None and (piece := self._packed.take()):
            self._take(piece)
            return True
        clock = asyncio.get_running_loop().time
        asked = clock()
        if self._apart:
            piece, _ = await self._stream.readchunk()
        else:
            piece = await self._stream.readany()
        if piece:
            self._receive(piece)
            self._pace(clock() - asked, len(piece))
        elif self._packed is not None:
            self._packed.end()
        return bool(piece)

    def _receive(self, piece: bytes) -> None:
        if self._packed is None:
            self._take(piece)
        else:
            self._packed.feed(piece)

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.have += len(piece)
        if self._largest is not None and self.have > self._largest:
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
    """Raise MediaGone or DownloadError for an answer whose status is none of ``accepted``.

    ``shown`` is its URL as messages show it.
    """
    if response.status in _GONE:
        raise MediaGone(f"{shown} answers {response.status}")
    if response.status not in accepted:
        raise DownloadError(
            f"{shown} answers {response.status}",
            retry_after_s=retry_after_s(response.headers),
            refused=400 <= response.status < 500 and response.status not in _PASSING,
        )


def check_coding(response: aiohttp.ClientResponse, *, shown: str) -> None:
    """Raise DownloadError for a body that cannot be unpacked."""
    try:
        coding_of(response.headers.get("Content-Encoding", ""))
    except DownloadError as exc:
        raise DownloadError(f"{shown} {exc}") from None
