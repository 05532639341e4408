"""What keeps the assets of an output place, whatever it is: a disk, or a bucket."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from asyncpipe.media.source import StoredFile, Target


class Store(Protocol):
    """Fetches outputs to where they stay: whole and verified under their final names, or not."""

    async def __aenter__(self) -> Self:
        """Open it, and see that it can be written; see the class for what is raised."""

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""

    async def fetch(self, url: str, target: Target) -> StoredFile:
        """Fetch ``url`` once.

        Raises MediaGone when its server says so, TooLarge, DownloadError for anything else that
        may pass, and DiskError when the store does not take it. Then nothing stands under the
        final name, and never anything in the place of another's file.
        """

    async def stands(self, file: StoredFile) -> bool:
        """Whether a file stands byte for byte as it was stored."""
