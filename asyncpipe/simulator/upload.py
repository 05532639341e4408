"""UploadDesk: take a file, serve it for a while, and know whether a request's inputs can be had."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, web

from asyncpipe.simulator.faults import dice
from asyncpipe.simulator.wire import Service, broken_gateway, drop, refusal, root

LARGEST = 50 * 1024 * 1024
"""Bytes of a file; larger ones are answered 413."""

LARGEST_AUDIO = 512 * 1024 * 1024
"""Those of sound."""

KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of uploads that are served at once; the books remember of older ones that they were."""

FAULTY_IN_A_ROW = 2
"""Faulty answers to uploads of the same bytes."""

_MEDIA = re.compile(r"(^|_)(image|video|audio|mask|frame)s?(_urls?)?$")

_OURS = re.compile(r"/uploads/([0-9a-f]{32})\.[a-z0-9]+")

_ERRORS = (429, 500, 502, 503)


class UploadDesk:
    """Answer uploads, and look at what submits name."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._books = service.books
        self._kept: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._size = 0

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """Answer one upload."""
        part = await _file(request, "file")
        if part is None:
            return refusal(400, "file is required")
        kind = part.headers.get("Content-Type", "application/octet-stream")
        body = await _read(part, LARGEST_AUDIO if kind.startswith("audio/") else LARGEST)
        if body is None:
            return refusal(413, "request entity too large")
        upload = self.take(request, body, kind)
        if not isinstance(upload, str):
            return upload
        ending = (part.filename or "").rpartition(".")[2].lower() or "bin"
        told = {
            "type": kind.partition("/")[0],
            "download_url": f"{root(request)}/uploads/{upload}.{ending}",
            "filename": f"{upload}.{ending}",
            "size": len(body),
        }
        return web.json_response({"code": 200, "message": "success", "data": told})

    def take(
        self, request: web.Request, body: bytes, kind: str, *, name: str = ""
    ) -> str | web.StreamResponse:
        """Keep a file under its name, or a new one; returns that, or the answer of a fault."""
        digest = hashlib.sha256(body).hexdigest()
        if (faulty := self._faulty(request, digest)) is not None:
            return faulty
        number = self._books.note_upload(digest, len(body))
        draw = dice(self._service.settings.seed, "upload", number)
        name = name or f"{draw.getrandbits(128):032x}"
        self._books.name_upload(number, name)
        self._keep(name, body, kind)
        return name

    def _faulty(self, request: web.Request, digest: str) -> web.StreamResponse | None:
        settings, row = self._service.settings, f"faulty upload {digest[:16]}"
        before = self._books.counter(row)
        draw = dice(settings.seed, "upload", digest, before)
        if before >= FAULTY_IN_A_ROW or draw.random() >= settings.faults.upload_error:
            return None
        self._books.count(row)
        return drop(request) if draw.random() < 0.3 else broken_gateway(draw, _ERRORS)

    def _keep(self, upload: str, body: bytes, kind: str) -> None:
        self._kept[upload] = (body, kind)
        self._size += len(body)
        while self._size > KEPT_BYTES:
            _, (old, _) = self._kept.popitem(last=False)
            self._size -= len(old)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for an uploaded file."""
        if "Authorization" in request.headers or "Cookie" in request.headers:
            self._books.count("media_credentials")
        upload = request.match_info["id"]
        kept = self._kept.get(upload)
        if kept is None or self._books.upload_digest(upload) is None:
            return web.Response(status=404)
        return web.Response(body=kept[0], content_type=kept[1])

    # -- what submits name ----------------------------------------------------------------------

    def malformed(self, body: dict[str, Any]) -> str | None:
        """The field of a request that should hold a URL and holds something else; None: all do."""
        for name, text in _media(body):
            if not text.lower().startswith(("http://", "https://", "data:")):
                return name
        return None

    def unreachable(self, body: dict[str, Any]) -> str | None:
        """A URL of ours in a request that leads nowhere any more, or never did; None: all do."""
        return next((url for _, url in _media(body) if self._leads_nowhere(url)), None)

    def _leads_nowhere(self, url: str) -> bool:
        place = urlsplit(url) if url.startswith("http") else None
        if place is None or place.hostname not in ("127.0.0.1", "localhost", "::1"):
            return False
        ours = _OURS.fullmatch(place.path)
        digest = self._books.upload_digest(ours[1]) if ours else None
        if ours is None or digest is None:
            return True
        return self._expires(ours[1], digest)

    def _expires(self, upload: str, digest: str) -> bool:
        """Whether the fault strikes that this upload is gone when it is first needed."""
        settings, row = self._service.settings, f"gone upload {digest[:16]}"
        chance = settings.faults.input_gone
        if not chance or self._books.counter(row):
            return False
        if dice(settings.seed, "gone", upload).random() >= chance:
            return False
        self._books.count(row)
        self._books.expire_uploads(upload)
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class FormFile:
    """A file of a form: its bytes, its media type, its name."""

    body: bytes
    kind: str
    name: str

    @property
    def ending(self) -> str:
        """How its name ends; ``bin`` where it does not."""
        return self.name.rpartition(".")[2].lower() or "bin"


async def read_file(request: web.Request, field: str) -> FormFile | None:
    """The file in a form's field; None where there is none, or one that is too large."""
    part = await _file(request, field)
    body = await _read(part, LARGEST_AUDIO) if part is not None else None
    if part is None or body is None:
        return None
    kind = part.headers.get("Content-Type", "application/octet-stream")
    return FormFile(body=body, kind=kind, name=part.filename or "")


async def _file(request: web.Request, field: str) -> BodyPartReader | None:
    if not request.content_type.startswith("multipart/"):
        return None
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and part.name == field:
            return part
    return None


async def _read(part: BodyPartReader, largest: int) -> bytes | None:
    """The file; None if it has more than ``largest`` bytes."""
    pieces, size = [], 0
    while piece := await part.read_chunk(256 * 1024):
        size += len(piece)
        if size > largest:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _media(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(field, text) of everything in a request that should be a URL of media."""
    if isinstance(value, dict):
        for inner, held in value.items():
            yield from _media(held, inner)
    elif isinstance(value, list):
        for held in value:
            yield from _media(held, name)
    elif isinstance(value, str) and _MEDIA.search(name):
        yield name, value
