"""The APIs that are submitted to, polled, and answer URLs.

``base`` is what the engine asks of one; ``atlas`` is Atlas Cloud; ``catalog`` is what a catalogue
of models says. A provider is a module that has ``connect``, ``has_key`` and ``KEY_VARIABLES``, and
``known_prices`` where its prices are known without asking. It is found by its name: a folder beside
``atlas``, or what a package of its own names as an entry point of the group
``asyncpipe.providers``::

    [project.entry-points."asyncpipe.providers"]
    pottery = "my_package.pottery"
"""

from __future__ import annotations

from contextlib import suppress

from asyncpipe._registry import find_provider, provider_names, provider_of_environment
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
    "provider_named",
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
    provider: Provider = find_provider(name).connect(
        base_url=base_url, simulated=simulated, keyless=keyless
    )
    if provider.name != name:
        raise UsageError(f"the provider {name!r} calls itself {provider.name!r}: it has one name")
    return provider


def provider_named(*said: str | None) -> str:
    """The first name that is said, or the environment's (ASYNCPIPE_PROVIDER), or the usual one."""
    names = (*said, provider_of_environment())
    return next((name for name in names if name), DEFAULT_PROVIDER)


def has_key(name: str = DEFAULT_PROVIDER) -> bool:
    """Whether the environment holds a key for a provider; raises UsageError for an unknown one."""
    return bool(find_provider(name).has_key())


def key_variable(name: str = DEFAULT_PROVIDER) -> str:
    """The environment variable that a provider's key is looked for in first."""
    return str(find_provider(name).KEY_VARIABLES[0])


def key_variables() -> frozenset[str]:
    """Every environment variable that may hold a provider's key."""
    found: set[str] = set()
    for name in provider_names():
        with suppress(UsageError):  # another package's that cannot be loaded has none to read
            found.update(find_provider(name).KEY_VARIABLES)
    return frozenset(found)


def known_prices(
    name: str = DEFAULT_PROVIDER, *, base_url: str | None = None, simulated: bool = False
) -> PriceBook | None:
    """What is known of a provider's prices without asking it, if anything; raises UsageError.

    None, too, where it is at another place than its own: others may charge otherwise.
    """
    book: PriceBook | None = None
    if (tell := getattr(find_provider(name), "known_prices", None)) is not None:
        book = tell(base_url=base_url, simulated=simulated)
    return book
