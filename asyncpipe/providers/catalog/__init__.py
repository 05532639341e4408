"""The provider's catalogue: which models there are, and what each one's requests may hold; pure."""

from asyncpipe.providers.catalog.body import BodyCheck
from asyncpipe.providers.catalog.models import (
    BUILT_IN,
    BUILT_IN_AS_OF,
    CatalogModel,
    Lookup,
    look_up,
    read_models,
)
from asyncpipe.providers.catalog.schema import read_schema

__all__ = [
    "BUILT_IN",
    "BUILT_IN_AS_OF",
    "BodyCheck",
    "CatalogModel",
    "Lookup",
    "look_up",
    "read_models",
    "read_schema",
]
