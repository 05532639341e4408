"""Links to assets, for manifest and export: by a template of the user's, or signed by the store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from asyncpipe.errors import UsageError
from asyncpipe.jobs import Links
from asyncpipe.ledger import SharedPlace, bucket_of
from asyncpipe.media import Bucket
from asyncpipe.report.results import Asset


class Linker:
    """Makes the links of one document; ``until`` is when they end (None: nobody knows of an end).

    Only assets of this very place are signed for: the keys are its own.
    """

    def __init__(self, links: Links | None, where: Path | SharedPlace, at: datetime) -> None:
        self._template = links.public_url if links is not None else None
        self._presign = links.presign if links is not None else None
        bucket = bucket_of(where)
        self._store = str(bucket) if bucket is not None else None
        if self._presign is not None and bucket is None:
            raise UsageError("presign: only the store of a bucket signs links; use public_url")
        self._bucket = Bucket(bucket) if bucket is not None and self._presign else None
        self.until = None if self._presign is None else at + self._presign

    def of(self, assets: Sequence[Asset]) -> list[str | None]:
        """A link to each asset, or None: its URL in its store where nothing else is said."""
        if self._bucket is not None and self._presign is not None:
            ours = [asset.name for asset in assets if asset.store == self._store]
            signed = dict(zip(ours, self._bucket.sign(ours, self._presign), strict=True))
            return [signed.get(asset.name) for asset in assets]
        return [self._link(asset) for asset in assets]

    def _link(self, asset: Asset) -> str | None:
        if self._template is not None:
            return self._template.replace("{path}", quote(asset.name))
        return f"{asset.store}/{asset.name}" if "://" in asset.store else None
