"""What was known of the article's models when this was written, for when there is no network."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from asyncpipe.catalog.models import CatalogModel

BUILT_IN_AS_OF = date(2026, 9, 29)
"""The newest of the notes this list was made from."""

BUILT_IN = (
    CatalogModel(
        id="black-forest-labs/flux-2-pro/text-to-image",
        type="image",
        name="FLUX.2 Pro",
        base_price=Decimal("0.04"),
    ),
    CatalogModel(
        id="google/imagen4-ultra",
        type="image",
        name="Imagen 4 Ultra",
        base_price=Decimal("0.06"),
    ),
    CatalogModel(
        id="bytedance/seedance-v1.5-pro/text-to-video",
        type="video",
        name="Seedance v1.5 Pro",
        base_price=Decimal("0.022"),
    ),
    CatalogModel(
        id="google/veo3.1/text-to-video",
        type="video",
        name="Veo 3.1",
        base_price=Decimal("0.20"),
    ),
    CatalogModel(
        id="openai/sora-2/text-to-video",
        type="video",
        name="Sora 2",
        base_price=Decimal("0.15"),
    ),
)
"""The article's five models by their real ids; never used to refuse a job."""
