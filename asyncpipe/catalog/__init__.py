"""The provider's catalogue: which models there are, and what each one's requests may hold; pure."""

from asyncpipe.catalog.body import BodyCheck
from asyncpipe.catalog.builtin import BUILT_IN, BUILT_IN_AS_OF
from asyncpipe.catalog.lookup import Lookup, look_up
from asyncpipe.catalog.models import CatalogModel, read_models
from asyncpipe.catalog.schema import read_schema

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
