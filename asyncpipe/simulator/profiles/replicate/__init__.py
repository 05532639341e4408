"""Replicate on the wire: predictions, their list, files, and the account."""

from __future__ import annotations

from aiohttp import web

from asyncpipe.simulator.faults import dice
from asyncpipe.simulator.profiles.replicate.listing import PredictionList
from asyncpipe.simulator.profiles.replicate.predictions import Predictions
from asyncpipe.simulator.profiles.replicate.words import limited, problem, throttled
from asyncpipe.simulator.upload import UploadDesk, read_file
from asyncpipe.simulator.wire import Service, root

_OPEN = ("/media/", "/uploads/", "/books")
"""What is asked for without a key."""


def profile(service: Service) -> ReplicateWire:
    """Make it."""
    return ReplicateWire(service)


class ReplicateWire:
    """Replicate's paths and its key."""

    base_path = "/v1"

    def __init__(self, service: Service) -> None:
        self._service = service
        self._uploads = UploadDesk(service)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add its paths."""
        predictions = Predictions(self._service, self._uploads)
        router.add_post("/v1/models/{owner}/{name}/predictions", predictions.of_model)
        router.add_post("/v1/deployments/{owner}/{name}/predictions", predictions.of_deployment)
        router.add_post("/v1/predictions", predictions.of_version)
        router.add_get("/v1/predictions", PredictionList(self._service, predictions).page)
        router.add_get("/v1/predictions/{id}", predictions.poll)
        router.add_post("/v1/predictions/{id}/cancel", predictions.cancel)
        router.add_get("/v1/webhooks/default/secret", predictions.signed.secret)
        router.add_post("/v1/files", self._file)
        router.add_get("/v1/account", self._account)
        router.add_get("/uploads/{id}.{suffix}", self._uploads.serve)

    def refusal(self, request: web.Request) -> web.StreamResponse | None:
        """The key comes as ``Bearer …``."""
        if request.path.startswith(_OPEN):
            return None
        if not self._service.has_key(request, "Bearer"):
            return problem(401, "You did not pass a valid authentication token", "Unauthenticated")
        if not self._service.over_rate():
            return None
        return throttled(dice(self._service.settings.seed, self._service.books.submits()))

    def elsewhere(self, request: web.Request) -> web.StreamResponse:
        """An honest 404."""
        return problem(404, "The requested resource could not be found.")

    async def _account(self, request: web.Request) -> web.Response:
        name = self._service.account(request)
        told = {"type": "user", "username": name, "name": "Simulated", "github_url": None}
        return limited(web.json_response(told))

    async def _file(self, request: web.Request) -> web.StreamResponse:
        part = await read_file(request, "content")
        if part is None:
            return problem(400, "content is required")
        taken = self._uploads.take(request, part.body, part.kind)
        if not isinstance(taken, str):
            return taken
        told = {
            "id": taken,
            "name": part.name,
            "content_type": part.kind,
            "size": len(part.body),
            "metadata": {},
            "urls": {"get": f"{root(request)}/uploads/{taken}.{part.ending}"},
        }
        return limited(web.json_response(told, status=201))
