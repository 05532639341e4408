"""A Django view that makes a picture: no event loop in sight.

    DJANGO_SETTINGS_MODULE=shop.settings gunicorn --threads 16 shop.wsgi

One ``BlockingPipeline`` a process serves all of its threads; with MEDIA_LEDGER=postgresql://… all
processes share one ledger. The same name is the same job: who reloads the page pays nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from asyncpipe import AsyncpipeError, Pipeline, UsageError, connect, sync

pictures = sync.BlockingPipeline(
    lambda: Pipeline(
        connect("atlas", base_url=os.environ.get("MEDIA_BASE_URL")),
        os.environ.get("MEDIA_FOLDER", "media"),
        ledger=os.environ.get("MEDIA_LEDGER"),
    )
)

MODEL = "black-forest-labs/flux-2-pro/text-to-image"


def picture(request: HttpRequest, sku: str) -> HttpResponse:
    """The picture of a product, made at its first request."""
    prompt = request.GET.get("prompt", "")
    job = {"name": sku, "model": MODEL, "prompt": prompt, "width": 64, "height": 64}
    try:
        result = pictures.generate(job, timeout_s=120)
    except TimeoutError:  # it goes on: the next request waits for it, or finds it there
        return JsonResponse({"state": "not ready yet"}, status=202)
    except UsageError as exc:
        return JsonResponse({"error": str(exc)}, status=422)
    except AsyncpipeError as exc:
        return JsonResponse({"error": str(exc)}, status=503)
    if not result.ok:
        return JsonResponse({"error": result.error, "reason": result.reason}, status=502)
    asset = result.assets[0]
    return HttpResponse(Path(asset.path).read_bytes(), content_type=asset.media_type)


urlpatterns = [path("pictures/<str:sku>", picture)]
