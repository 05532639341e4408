"""The APIs that are submitted to, polled, and answer URLs.

``base`` is what the engine asks of one; ``atlas`` is Atlas Cloud; ``catalog`` is what a catalogue
of models says. A new provider is a folder beside ``atlas`` whose ``__init__`` has ``connect``,
``has_key`` and ``KEY_VARIABLES``, and ``known_prices`` where its prices are known without asking;
it is found by the folder's name.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.pricing import PriceBook
from asyncpipe.providers.answers import (
    listed_page,
    prediction_of,
    sent_body,
    told_route,
    upload_url,
)
from asyncpipe.providers.base import (
    Cancelled,
    HasAccountId,
    HasBills,
    HasCallbacks,
    HasCancel,
    HasHistory,
    HasKeys,
    Listed,
    Prediction,
    PredictionStatus,
    Provider,
    Uploader,
    account_of,
    lists_ended_only,
    media_s_of,
    retention_of,
)

DEFAULT_PROVIDER = "atlas"
"""The name of the provider where nobody names one."""

__all__ = [
    "DEFAULT_PROVIDER",
    "Cancelled",
    "HasAccountId",
    "HasBills",
    "HasCallbacks",
    "HasCancel",
    "HasHistory",
    "HasKeys",
    "Listed",
    "Prediction",
    "PredictionStatus",
    "Provider",
    "Uploader",
    "account_of",
    "connect",
    "has_key",
    "key_variable",
    "key_variables",
    "known_prices",
    "listed_page",
    "lists_ended_only",
    "media_s_of",
    "prediction_of",
    "retention_of",
    "sent_body",
    "told_route",
    "upload_url",
]


def connect(
    name: str = DEFAULT_PROVIDER,
    *,
    base_url: str | None = None,
    simulated: bool = False,
    keyless: bool = False,
) -> Provider:
    """Make a provider by its name; its key comes from the environment.

    ``base_url`` is where it is, if not at its own place; ``simulated``: a simulator is there, which
    takes any key. ``keyless`` reads and sends no key: for what is free to ask. Raises UsageError.
    """
    provider: Provider = _folder(name).connect(
        base_url=base_url, simulated=simulated, keyless=keyless
    )
    return provider


def has_key(name: str = DEFAULT_PROVIDER) -> bool:
    """Whether the environment holds a key for a provider; raises UsageError for an unknown one."""
    return bool(_folder(name).has_key())


def key_variable(name: str = DEFAULT_PROVIDER) -> str:
    """The environment variable that a provider's key is looked for in first."""
    return str(_folder(name).KEY_VARIABLES[0])


def key_variables() -> frozenset[str]:
    """Every environment variable that may hold a provider's key."""
    folders = [each.name for each in iter_modules(__path__) if each.ispkg]
    modules = [import_module(f"{__name__}.{name}") for name in folders]
    return frozenset(name for each in modules for name in getattr(each, "KEY_VARIABLES", ()))


def known_prices(
    name: str = DEFAULT_PROVIDER, *, base_url: str | None = None, simulated: bool = False
) -> PriceBook | None:
    """What is known of a provider's prices without asking it, if anything; raises UsageError.

    None, too, where it is at another place than its own: others may charge otherwise.
    """
    book: PriceBook | None = None
    if (tell := getattr(_folder(name), "known_prices", None)) is not None:
        book = tell(base_url=base_url, simulated=simulated)
    return book


def _folder(name: str) -> Any:
    module = f"{__name__}.{name}"
    if name.isidentifier() and find_spec(module) is not None:
        folder = import_module(module)
        if hasattr(folder, "connect"):
            return folder
    raise UsageError(f"there is no provider {name!r}: {DEFAULT_PROVIDER!r} is one")
