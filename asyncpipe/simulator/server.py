"""The look-alike: one provider's API on aiohttp.web with its own books."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from asyncpipe.simulator.books import Books
from asyncpipe.simulator.download import Downloads
from asyncpipe.simulator.media import MediaMaker
from asyncpipe.simulator.poll import COVER
from asyncpipe.simulator.profiles import profile_of
from asyncpipe.simulator.settings import SimulatorSettings
from asyncpipe.simulator.wire import Service

_LARGEST_REQUEST = 50 * 1024 * 1024

SHUTDOWN_S = 0.5
"""How long requests that are under way may take at the end."""


class Simulator:
    """Serve while entered; ``base_url`` and ``books`` say where and what was sold."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self._settings = settings or SimulatorSettings()
        self._exit = AsyncExitStack()
        self.base_url: str = ""

    async def __aenter__(self) -> Self:
        maker = MediaMaker(body_bytes=self._settings.body_bytes)
        maker.check()
        async with AsyncExitStack() as stack:
            stack.callback(maker.close)
            self.books: Books = Books(self._settings.books)
            stack.callback(self.books.close)
            service = Service(self._settings, self.books, maker)
            self._profile = profile_of(self._settings.profile, service)
            runner = web.AppRunner(self._app(service), access_log=None, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            stack.push_async_callback(service.close)
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
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self.base_url = f"{address}{self._profile.base_path}"
        if settings.faults.redirected:
            await web.TCPSite(runner, settings.host, settings.media_port).start()
            service.media_port = runner.addresses[sites][1]

    def _app(self, service: Service) -> web.Application:
        downloads = Downloads(service)
        app = web.Application(middlewares=[self._gateway], client_max_size=_LARGEST_REQUEST)
        add = app.router
        add.add_get(f"/media/{{id}}/{COVER}", downloads.cover)
        add.add_get(
            "/media/{id}/{index:\\d+}{suffix:(?:\\.png|\\.mp4|\\.wav|\\.glb)?}", downloads.download
        )
        add.add_get("/books", self._summary)
        self._profile.add_routes(add)
        add.add_route("*", "/{rest:.*}", self._elsewhere)
        return app

    @web.middleware
    async def _gateway(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse what the profile refuses, before any route is looked at."""
        response: web.StreamResponse | None = self._profile.refusal(request)
        if response is None:
            response = await handler(request)
        if not response.prepared:
            response.headers.setdefault("X-Request-ID", uuid.uuid4().hex)
        return response

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        return self._profile.elsewhere(request)

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(self.books.summary())
