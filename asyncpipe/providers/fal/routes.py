"""Where fal is, and where a request is asked for: pure.

A request is submitted to an endpoint (``fal-ai/flux/dev``) and polled at its app (``fal-ai/flux``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from asyncpipe.errors import PollFailed, Rejected
from asyncpipe.providers.address import base_of, segment

QUEUE = "https://queue.fal.run"

API = "https://api.fal.ai/v1"

STORAGE = "https://rest.fal.ai"

_FALS = frozenset({"queue.fal.run", "queue.falrun.com"})
"""Hosts of the queue: the second one is documented as a substitute."""

_NAMESPACES = frozenset({"workflows", "comfy"})
"""What stands before the owner of an app and belongs to its name."""

_NAME = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"

_ENDPOINT = re.compile(rf"{_NAME}(/{_NAME})+", re.ASCII)

_TOLD = re.compile(rf"/(?P<app>{_NAME}(/{_NAME})+)/requests/(?P<id>[^/]+)", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """Where the queue, the platform's API and the storage are."""

    queue: str
    api: str
    storage: str

    @property
    def own(self) -> bool:
        """Whether they are fal's."""
        return self.queue == QUEUE


def hosts_of(base_url: str | None, *, simulated: bool) -> Hosts:
    """Fal's three hosts, or one that stands for all of them. Raises UsageError."""
    text = base_url or ("" if simulated else QUEUE)
    base = str(base_of(text, example=QUEUE, simulated=simulated)).rstrip("/")
    if base == QUEUE:
        return Hosts(queue=QUEUE, api=API, storage=STORAGE)
    return Hosts(queue=base, api=f"{base}/v1", storage=base)


def submit_path(model: str) -> str:
    """Where ``model`` is submitted to. Raises Rejected for what is no endpoint of fal's."""
    if not _ENDPOINT.fullmatch(model):
        raise Rejected(f"{model!r} is no endpoint of fal: they are called OWNER/APP or OWNER/APP/…")
    return f"/{model}"


def app_of(model: str) -> str:
    """The app that an endpoint belongs to: its first two names, and a namespace before them."""
    names = model.split("/")
    return "/".join(names[: 3 if names[0] in _NAMESPACES else 2])


def told_route(model: str, prediction_id: str, url: Any, hosts: Hosts) -> str:
    """The route of a request: its endpoint, and its app where fal says another than we expect.

    What is told is believed where the host is fal's (or the one that stands for it) and the path is
    one of a request: the key goes nowhere else.
    """
    app = _app_in(url, prediction_id, hosts)
    return model if app is None or app == app_of(model) else f"{model} {app}"


def _app_in(url: Any, prediction_id: str, hosts: Hosts) -> str | None:
    if not isinstance(url, str):
        return None
    try:
        told, base = URL(url), URL(hosts.queue)
        port = told.port
    except ValueError:
        return None
    same = (told.raw_host, port) == (base.raw_host, base.port)
    if told.scheme != base.scheme or not (same or (hosts.own and told.raw_host in _FALS)):
        return None
    found = _TOLD.fullmatch(urlsplit(url).path.removeprefix(base.raw_path.rstrip("/")))
    return found["app"] if found and found["id"] == prediction_id else None


def endpoint_of(route: str) -> str:
    """The endpoint that a route is of; "" for none."""
    return route.partition(" ")[0]


def request_path(route: str, prediction_id: str) -> str:
    """Where a request's result is, and below it its status.

    Raises PredictionGone for what no id can be, PollFailed without a route.
    """
    endpoint, _, app = route.partition(" ")
    place = segment(prediction_id)
    app = app or app_of(endpoint)
    if not _ENDPOINT.fullmatch(app):
        raise PollFailed("fal cannot be asked for a request without its model")
    return f"/{app}/requests/{place}"
