"""fal on the wire: its queue, its platform's API, its storage; one address stands for all three."""

from __future__ import annotations

from aiohttp import web

from asyncpipe.simulator.callbacks import CallbackDesk
from asyncpipe.simulator.profiles.fal.platform import FalPlatform
from asyncpipe.simulator.profiles.fal.queue import FalQueue
from asyncpipe.simulator.profiles.fal.signed import SignedByFal
from asyncpipe.simulator.profiles.fal.storage import FalStorage
from asyncpipe.simulator.profiles.fal.words import detail, traced
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service

_KEYS = "/.well-known/jwks.json"

_OPEN = ("/media/", "/uploads/", "/storage/put/", "/books", _KEYS)
"""What is asked for without a key."""


def profile(service: Service) -> FalWire:
    """Make it."""
    return FalWire(service)


class FalWire:
    """fal's paths and its key.

    A request is submitted to its endpoint, ``POST /{owner}/{app}/…``, and polled at its app. Keys
    that begin with ``admin`` are ADMIN keys, the only ones that bills and balance are told to.
    """

    base_path = ""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add its paths; those of the platform first, which an endpoint could be called like."""
        uploads = UploadDesk(self._service)
        signed = SignedByFal(self._service)
        queue = FalQueue(self._service, uploads, CallbackDesk(self._service, signed.write))
        platform, storage = FalPlatform(self._service), FalStorage(self._service, uploads)
        router.add_get(_KEYS, signed.keys)
        router.add_get("/v1/models/pricing", platform.pricing)
        router.add_post("/v1/models/pricing/estimate", platform.estimate)
        router.add_get("/v1/models/requests/by-endpoint", platform.requests)
        router.add_get("/v1/models/billing-events", platform.billing)
        router.add_get("/v1/account/billing", platform.account)
        router.add_post("/storage/upload/initiate", storage.initiate)
        router.add_put("/storage/put/{id}.{suffix}", storage.put)
        router.add_get("/uploads/{id}.{suffix}", uploads.serve)
        router.add_get("/{app:.+}/requests/{id}/status", queue.status)
        router.add_get("/{app:.+}/requests/{id}", queue.result)
        router.add_put("/{app:.+}/requests/{id}/cancel", queue.cancel)
        router.add_post("/{model:[^/]+/.+}", queue.submit)

    def refusal(self, request: web.Request) -> web.StreamResponse | None:
        """The key comes as ``Key …``."""
        if request.path.startswith(_OPEN):
            return None
        if not self._service.has_key(request, "Key"):
            return traced(detail(401, "No user found for Key ID and Secret"))
        return traced(detail(429, "slow down")) if self._service.over_rate() else None

    def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """An honest 404."""
        return traced(detail(404, f"Path {request.path} not found"))
