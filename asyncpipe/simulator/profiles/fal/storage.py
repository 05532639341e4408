"""fal's storage: a place for a file is asked for with the key, and filled without it."""

from __future__ import annotations

import re

from aiohttp import web

from asyncpipe.simulator.faults import dice
from asyncpipe.simulator.profiles.fal.words import NO_MONEY, detail, traced
from asyncpipe.simulator.submit import read_body
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service, root

_ENDING = re.compile(r"[a-z0-9]{1,8}")


class FalStorage:
    """Take files in two steps."""

    def __init__(self, service: Service, uploads: UploadDesk) -> None:
        self._service, self._uploads = service, uploads

    async def initiate(self, request: web.Request) -> web.Response:
        """Say where a file goes, and what its URL will be; a locked account gets no place."""
        books, settings, body = (
            self._service.books,
            self._service.settings,
            await read_body(request),
        )
        if not isinstance(body, dict) or not body.get("file_name"):
            return traced(detail(422, "file_name: field required"))
        balance = settings.balance_usd
        if balance is not None and books.charged(self._service.account(request)) >= balance:
            return traced(detail(403, NO_MONEY))
        books.count("places")
        draw = dice(settings.seed, "place", books.counter("places"))
        name = f"{draw.getrandbits(128):032x}"
        ending = str(body["file_name"]).rpartition(".")[2].lower()
        ending = ending if _ENDING.fullmatch(ending) else "bin"
        told = {
            "upload_url": f"{root(request)}/storage/put/{name}.{ending}?Signature=a%2Fb",
            "file_url": f"{root(request)}/uploads/{name}.{ending}",
        }
        return traced(web.json_response(told))

    async def put(self, request: web.Request) -> web.StreamResponse:
        """Take the bytes of a file; a key that comes with them is noted."""
        if "Authorization" in request.headers or "Cookie" in request.headers:
            self._service.books.count("media_credentials")
        kind = request.headers.get("Content-Type", "application/octet-stream")
        body, name = await request.read(), request.match_info["id"]
        taken = self._uploads.take(request, body, kind, name=name)
        return web.Response() if isinstance(taken, str) else taken
