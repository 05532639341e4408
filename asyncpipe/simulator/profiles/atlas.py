"""Atlas Cloud on the wire."""

from __future__ import annotations

from aiohttp import web

from asyncpipe.simulator.billing import Billing
from asyncpipe.simulator.callbacks import CallbackDesk
from asyncpipe.simulator.catalog import Catalog, public_refusal
from asyncpipe.simulator.history import History
from asyncpipe.simulator.poll import Polls
from asyncpipe.simulator.signed import SignedByAtlas
from asyncpipe.simulator.submit import Submits
from asyncpipe.simulator.upload import UploadDesk
from asyncpipe.simulator.wire import Service, firewall, refusal, too_many

_LIMITED = ("/api/v1/model/generate", "/api/v1/model/prediction/")

_MODELS = "/api/v1/models"

_CALCULATE = "/api/v1/model/calculate"

_KEYS = "/api/v1/webhooks/jwks.json"


def profile(service: Service) -> Atlas:
    """Make it."""
    return Atlas(service)


class Atlas:
    """Atlas Cloud's paths, its key, and what its gateway refuses."""

    base_path = "/api/v1"

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add its paths."""
        service = self._service
        polls, catalog, billing = Polls(service), Catalog(service), Billing(service)
        uploads = UploadDesk(service)
        signed = SignedByAtlas(service, polls)
        callbacks = CallbackDesk(service, signed.write, field="webhook_url")
        submits = Submits(service, polls, uploads, callbacks)
        tail = "/get" if service.settings.wire == "article" else ""
        router.add_post(
            "/api/v1/model/{endpoint:generateImage|generateVideo|generateAudio}", submits.submit
        )
        router.add_get(f"/api/v1/model/prediction/{{id}}{tail}", polls.poll)
        router.add_get(f"/api/v1/model/prediction/{{id}}{tail}/", polls.poll)
        router.add_get("/api/v1/model/history", History(service, polls).history)
        router.add_get(_KEYS, signed.keys)
        router.add_post("/api/v1/model/uploadMedia", uploads.upload)
        router.add_get("/uploads/{id}.{suffix}", uploads.serve)
        router.add_get(_MODELS, catalog.models)
        router.add_post(_CALCULATE, catalog.calculate)
        router.add_get("/public/v1/balance", catalog.balance)
        router.add_get("/public/v1/model-costs", billing.model_costs)
        router.add_get("/public/v1/model-usage", billing.model_usage)
        router.add_get("/schemas/{model:.+}.json", catalog.schema)

    def refusal(self, request: web.Request) -> web.StreamResponse | None:
        """What Cloudflare and the gateway refuse."""
        if request.headers.get("User-Agent", "").startswith("Python-urllib"):
            return firewall()
        if not self._may_pass(request):
            return self.elsewhere(request)
        limited = request.path.startswith(_LIMITED) and self._service.over_rate()
        return too_many() if limited else None

    def _may_pass(self, request: web.Request) -> bool:
        if request.path in (_MODELS, _KEYS) or not request.path.startswith(("/api/", "/public/")):
            return True
        authorization = request.headers.get("Authorization")
        if request.path == _CALCULATE and authorization is None:
            return True
        return self._service.has_key(request, "Bearer")

    def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """Paths that it does not have are answered like a wrong key."""
        if request.path.startswith("/public/"):
            return public_refusal(401, "unauthorized")
        return refusal(401, "unauthorized")
