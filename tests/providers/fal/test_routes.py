"""Where requests to fal go: an endpoint is submitted to, its app is polled."""

from __future__ import annotations

import pytest

from asyncpipe.errors import PollFailed, PredictionGone, Rejected, UsageError
from asyncpipe.providers.fal.routes import app_of, hosts_of, request_path, submit_path, told_route

OWN = hosts_of(None, simulated=False)
HERE = hosts_of("http://127.0.0.1:8080", simulated=True)


@pytest.mark.parametrize(
    ("model", "app"),
    [
        ("fal-ai/flux/dev", "fal-ai/flux"),
        ("fal-ai/fast-sdxl", "fal-ai/fast-sdxl"),
        ("fal-ai/kling-video/v1.6/standard/image-to-video", "fal-ai/kling-video"),
        ("workflows/me/mugs/best", "workflows/me/mugs"),
        ("comfy/me/mugs", "comfy/me/mugs"),
    ],
)
def test_an_endpoint_belongs_to_an_app(model: str, app: str) -> None:
    assert app_of(model) == app
    assert submit_path(model) == f"/{model}"
    assert request_path(model, "r-1") == f"/{app}/requests/r-1"


@pytest.mark.parametrize(
    "model", ["", "flux", "/fal-ai/flux", "a/../b", "a//b", "a/b?c=d", "模/型"]
)
def test_what_is_no_endpoint_is_not_sent(model: str) -> None:
    with pytest.raises(Rejected, match="OWNER/APP"):
        submit_path(model)


@pytest.mark.parametrize(
    ("url", "route"),
    [
        ("https://queue.fal.run/fal-ai/flux/requests/r-1", "fal-ai/flux/dev"),
        ("https://queue.fal.run/fal-ai/other/requests/r-1", "fal-ai/flux/dev fal-ai/other"),
        ("https://queue.falrun.com/fal-ai/other/requests/r-1", "fal-ai/flux/dev fal-ai/other"),
        # Nobody else's host, no other path, no other request, nothing that climbs.
        ("https://queue.fal.run.example/fal-ai/other/requests/r-1", "fal-ai/flux/dev"),
        ("https://fal.example/fal-ai/other/requests/r-1", "fal-ai/flux/dev"),
        ("http://queue.fal.run/fal-ai/other/requests/r-1", "fal-ai/flux/dev"),
        ("https://queue.fal.run:8443/a/b/requests/r-1", "fal-ai/flux/dev a/b"),
        ("https://queue.fal.run/fal-ai/other/requests/r-2", "fal-ai/flux/dev"),
        ("https://queue.fal.run/fal-ai/../admin/requests/r-1", "fal-ai/flux/dev"),
        ("https://queue.fal.run/keys", "fal-ai/flux/dev"),
        ("https://[broken", "fal-ai/flux/dev"),
        (None, "fal-ai/flux/dev"),
        (7, "fal-ai/flux/dev"),
    ],
)
def test_a_told_url_is_believed_where_the_host_is_fals(url: object, route: str) -> None:
    """Only its path is kept: the key goes to the one host that it was given for."""
    assert told_route("fal-ai/flux/dev", "r-1", url, OWN) == route


def test_what_stands_in_for_fal_is_believed_as_well() -> None:
    url = "http://127.0.0.1:8080/fal-ai/other/requests/r-1"
    assert told_route("fal-ai/flux/dev", "r-1", url, HERE) == "fal-ai/flux/dev fal-ai/other"
    fals = "https://queue.fal.run/fal-ai/other/requests/r-1"
    assert told_route("fal-ai/flux/dev", "r-1", fals, HERE) == "fal-ai/flux/dev"
    below = hosts_of("http://127.0.0.1:8080/fal", simulated=True)
    url = "http://127.0.0.1:8080/fal/fal-ai/other/requests/r-1"
    assert told_route("fal-ai/flux/dev", "r-1", url, below) == "fal-ai/flux/dev fal-ai/other"


def test_a_route_says_where_a_request_is() -> None:
    assert request_path("fal-ai/flux/dev fal-ai/other", "r-1") == "/fal-ai/other/requests/r-1"
    assert request_path("fal-ai/flux", "预") == "/fal-ai/flux/requests/%E9%A2%84"
    with pytest.raises(PollFailed, match="without its model"):
        request_path("", "r-1")
    for name in ("", "..", "a/../b"):
        with pytest.raises(PredictionGone):
            request_path("fal-ai/flux", name)


def test_fal_has_three_hosts_and_what_stands_in_for_it_one() -> None:
    assert (OWN.queue, OWN.api) == ("https://queue.fal.run", "https://api.fal.ai/v1")
    assert OWN.storage == "https://rest.fal.ai"
    assert (HERE.queue, HERE.api) == ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1")
    assert hosts_of("https://queue.fal.run/", simulated=False) == OWN
    with pytest.raises(UsageError, match="over https"):
        hosts_of("http://fal.example", simulated=False)
