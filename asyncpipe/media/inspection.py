"""Compare what lies in a bucket with what was stored there."""

from __future__ import annotations

import mimetypes
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count

import anyio

from asyncpipe._fs import leads_out
from asyncpipe._tasks import ungrouped
from asyncpipe.errors import DiskError, DownloadError, LedgerError
from asyncpipe.jobs import StoredAsset
from asyncpipe.media.bucket import Bucket

AT_ONCE = 8
"""Objects that are asked for, or read, at the same time."""

FEW = 10
"""Of fewer assets in a folder each is asked for; for more the folder is listed."""


class Inspection:
    """Looks at assets of a bucket.

    Raises DiskError where the store cannot be asked: that tells nothing about what is in it.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def problems(
        self, assets: Sequence[StoredAsset], *, hashing: bool
    ) -> list[tuple[StoredAsset, str]]:
        """Those that are missing or changed, and why; what has changed is put aside.

        With ``hashing`` objects are read; without, sizes are compared alone.
        """
        problems: dict[StoredAsset, str] = {}
        permits = anyio.Semaphore(AT_ONCE)

        async def look(asset: StoredAsset) -> None:
            async with permits:
                if problem := await self._problem(asset, hashing=hashing):
                    problems[asset] = problem

        try:
            sizes = {} if hashing else await self._sizes(assets)
            with ungrouped():
                async with anyio.create_task_group() as tasks:
                    for asset in assets:
                        if asset.missing or sizes.get(asset.path) != asset.size:
                            tasks.start_soon(look, asset, name="asyncpipe inspection")
        except DownloadError as exc:
            raise DiskError(
                f"{exc}: nothing is known of what is there; run the same command again"
            ) from exc
        return [(asset, problems[asset]) for asset in assets if asset in problems]

    async def _sizes(self, assets: Sequence[StoredAsset]) -> Mapping[str, int]:
        """What listings say of the folders with many of these assets."""
        folders = Counter(asset.path.rpartition("/")[0] for asset in assets)
        sizes: dict[str, int] = {}
        for folder, number in folders.items():
            if number >= FEW:
                sizes |= await self._bucket.listing(folder)
        return sizes

    async def _problem(self, asset: StoredAsset, *, hashing: bool) -> str | None:
        if leads_out(asset.path):
            raise LedgerError(
                f"the ledger names an object outside {self._bucket.url}: {asset.path!r}. Nothing "
                "was touched; do not use a ledger that somebody else may have written"
            )
        # What was missing counts as back with every byte only.
        sha256 = asset.sha256 if hashing or asset.missing else None
        if await self._bucket.stands(asset.path, asset.size, sha256):
            return None
        if await self._bucket.size(asset.path) is None:
            return "is missing"
        if asset.missing and not hashing:
            return "is missing, another object stands there"
        return f"has changed (kept as {await self._set_aside(asset.path)})"

    async def _set_aside(self, path: str) -> str:
        """Rename an object that is not ours any more: somebody may have worked on it."""
        media_type = mimetypes.guess_type(path)[0] or ""
        for n in count(1):
            aside = f"{path}.changed" + (f"-{n}" if n > 1 else "")
            if await self._bucket.move_new(path, aside, media_type):
                await self._bucket.remove(path)
                return aside.rpartition("/")[2]
        raise AssertionError
