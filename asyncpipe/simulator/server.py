"""The look-alike: an Atlas Cloud API on aiohttp.web with its own books."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from asyncpipe.simulator.billing import Billing
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.catalog import Catalog, public_refusal
from asyncpipe.simulator.download import Downloads
from asyncpipe.simulator.history import History
from asyncpipe.simulator.media import MediaMaker
from asyncpipe.simulator.poll import COVER, Polls
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.simulator.submit import Submits
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service, firewall, refusal, too_many

_LARGEST_REQUEST = 50 * 1024 * 1024

_LIMITED = ("/api/v1/model/generate", "/api/v1/model/prediction/")

_MODELS = "/api/v1/models"

_CALCULATE = "/api/v1/model/calculate"

SHUTDOWN_S = 0.5
"""How long requests that are under way may take at the end."""


class Simulator:
    """Serve while entered; ``base_url`` and ``books`` say where and what was sold."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self._settings = settings or SimulatorSettings()
        self._exit = AsyncExitStack()
        self.base_url = ""

    async def __aenter__(self) -> Self:
        maker = MediaMaker(body_bytes=self._settings.body_bytes)
        maker.check()
        async with AsyncExitStack() as stack:
            stack.callback(maker.close)
            self.books = Books(self._settings.books)
            stack.callback(self.books.close)
            service = self._service = Service(self._settings, self.books, maker)
            runner = web.AppRunner(self._app(service), access_log=None, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.callback(service.leaving.set)
            await self._listen(runner, service)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    async def _listen(self, runner: web.AppRunner, service: Service) -> None:
        settings = self._settings
        await web.TCPSite(runner, settings.host, settings.port).start()
        sites = len(runner.addresses)
        host, port = runner.addresses[0][:2]
        self.base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1"
        if settings.faults.redirected:
            await web.TCPSite(runner, settings.host, settings.media_port).start()
            service.media_port = runner.addresses[sites][1]

    def _app(self, service: Service) -> web.Application:
        polls = Polls(service)
        uploads = UploadDesk(service)
        submits, downloads = Submits(service, polls, uploads), Downloads(service)
        catalog = Catalog(service)
        app = web.Application(middlewares=[self._gateway], client_max_size=_LARGEST_REQUEST)
        tail = "/get" if self._settings.wire == "article" else ""
        add = app.router
        add.add_post(
            "/api/v1/model/{endpoint:generateImage|generateVideo|generateAudio}", submits.submit
        )
        add.add_get(f"/api/v1/model/prediction/{{id}}{tail}", polls.poll)
        add.add_get(f"/api/v1/model/prediction/{{id}}{tail}/", polls.poll)
        add.add_get("/api/v1/model/history", History(service, polls).history)
        add.add_get(f"/media/{{id}}/{COVER}", downloads.cover)
        add.add_get(
            "/media/{id}/{index:\\d+}{suffix:(?:\\.png|\\.mp4|\\.wav|\\.glb)?}", downloads.download
        )
        add.add_post("/api/v1/model/uploadMedia", uploads.upload)
        add.add_get("/uploads/{id}.{suffix}", uploads.serve)
        add.add_get(_MODELS, catalog.models)
        add.add_post(_CALCULATE, catalog.calculate)
        add.add_get("/public/v1/balance", catalog.balance)
        billing = Billing(service)
        add.add_get("/public/v1/model-costs", billing.model_costs)
        add.add_get("/public/v1/model-usage", billing.model_usage)
        add.add_get("/schemas/{model:.+}.json", catalog.schema)
        add.add_get("/books", self._summary)
        add.add_route("*", "/{rest:.*}", self._elsewhere)
        return app

    @web.middleware
    async def _gateway(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse what Cloudflare and the gateway refuse, before any route is looked at."""
        if request.headers.get("User-Agent", "").startswith("Python-urllib"):
            return firewall()
        if not self._may_pass(request):
            return _unauthorized(request)
        limited = request.path.startswith(_LIMITED) and self._service.over_rate()
        response: web.StreamResponse = too_many() if limited else await handler(request)
        if not response.prepared:
            response.headers["X-Request-ID"] = uuid.uuid4().hex
        return response

    def _may_pass(self, request: web.Request) -> bool:
        if request.path == _MODELS or not request.path.startswith(("/api/", "/public/")):
            return True
        authorization = request.headers.get("Authorization")
        if request.path == _CALCULATE and authorization is None:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        expected = self._settings.api_key
        return scheme == "Bearer" and bool(key) and (expected is None or key == expected)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return _unauthorized(request)

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(self.books.summary())


def _unauthorized(request: web.Request) -> web.Response:
    if request.path.startswith("/public/"):
        return public_refusal(401, "unauthorized")
    return refusal(401, "unauthorized")
