"""A file as a request's body, or as the one field of a form: streamed, with its length known."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

BLOCK = 256 * 1024
"""Bytes that are read at once, and all of the file that is in memory."""

HEAD_BYTES = 512
"""So many first bytes of a file tell what it is."""

Tell = Callable[[bytes, str], tuple[str, str]]
"""From the first bytes of a file and its name to its ending and its media type."""


class FilePart:
    """A form with one file; ``content_type`` is the form's. Of its name the ending alone is told.

    (The name may be anything, in any script, and the API gives it another one.) ``tell`` says what
    the file is.
    """

    def __init__(self, path: Path, *, tell: Tell, field: str = "file") -> None:
        self.path = path
        self._tell = tell
        self._field = field
        self._boundary = uuid.uuid4().hex

    @property
    def content_type(self) -> str:
        """For the request's header."""
        return f"multipart/form-data; boundary={self._boundary}"

    async def open(self, stack: AsyncExitStack) -> tuple[int, AsyncIterator[bytes]]:
        """Return the form's length and its bytes, once; ``stack`` closes the file.

        Raises OSError when the file cannot be read, also while it is being read. Exactly the
        length is sent: of a file that grows its beginning, of one that shrinks nothing whole.
        """
        file = await stack.enter_async_context(aiofiles.open(self.path, "rb"))
        size = os.fstat(file.fileno()).st_size
        head = self._head(await file.read(HEAD_BYTES))
        await file.seek(0)
        tail = f"\r\n--{self._boundary}--\r\n".encode()
        return len(head) + size + len(tail), self._pieces(file, head, size, tail)

    def _head(self, first: bytes) -> bytes:
        ending, content_type = self._tell(first, self.path.name)
        return (
            f"--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="{self._field}"; filename="input.{ending}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()

    async def _pieces(
        self, file: AsyncBufferedReader, head: bytes, size: int, tail: bytes
    ) -> AsyncIterator[bytes]:
        yield head
        async for block in _blocks(self.path, file, size):
            yield block
        yield tail


class WholeFile:
    """A file as a request's whole body, streamed from disk with its length known.

    ``tell`` says what the file is; ``content_type`` and ``ending`` are known once it was ``looked``
    at.
    """

    def __init__(self, path: Path, *, tell: Tell) -> None:
        self.path = path
        self._tell = tell
        self.content_type, self.ending = "application/octet-stream", "bin"

    async def look(self) -> None:
        """Find out what it is. Raises OSError when it cannot be read."""
        async with aiofiles.open(self.path, "rb") as file:
            self.ending, self.content_type = self._tell(await file.read(HEAD_BYTES), self.path.name)

    async def open(self, stack: AsyncExitStack) -> tuple[int, AsyncIterator[bytes]]:
        """Return its length and its bytes, once, as ``FilePart.open`` does."""
        file = await stack.enter_async_context(aiofiles.open(self.path, "rb"))
        size = os.fstat(file.fileno()).st_size
        return size, _blocks(self.path, file, size)


async def _blocks(path: Path, file: AsyncBufferedReader, size: int) -> AsyncIterator[bytes]:
    """Exactly ``size`` bytes of a file."""
    while size:
        block = await file.read(min(BLOCK, size))
        if not block:
            raise OSError(f"{path} became shorter while it was sent")
        size -= len(block)
        yield block
