"""A provider's catalogue: which models there are, and what their requests may hold.

``models`` lists and finds them, ``schema`` and ``body`` check a request, ``live`` gets both.
"""

from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.live import (
    Catalogue,
    HasCatalogue,
    fetch_schemas,
    find_models,
    get_catalogue,
)
from asyncpipe.providers.catalog.models import CatalogModel, Lookup, read_models
from asyncpipe.providers.catalog.schema import read_schema

__all__ = [
    "BodyCheck",
    "CatalogModel",
    "Catalogue",
    "HasCatalogue",
    "Lookup",
    "fetch_schemas",
    "find_models",
    "get_catalogue",
    "read_models",
    "read_schema",
]
