"""Providers are found by name, and what they can do besides is asked for."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from asyncpipe.errors import UsageError
from asyncpipe.pricing.balance import HasBalance
from asyncpipe.pricing.bill import HasBill
from asyncpipe.pricing.quoting import HasQuotes
from asyncpipe.providers import (
    DEFAULT_PROVIDER,
    Provider,
    Uploader,
    connect,
    has_key,
    key_variable,
)
from asyncpipe.providers.catalog.live import HasCatalogue, find_models, get_catalogue
from asyncpipe.testing import FakeAccount, FakeProvider

HERE = "http://127.0.0.1:1"


def test_a_provider_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default one without; each knows where its key is looked for."""
    monkeypatch.setenv(key_variable(), "apikey-0123456789abcdef")
    assert has_key()
    for provider in (connect(), connect(DEFAULT_PROVIDER)):
        assert isinstance(provider, Provider)
        assert provider.name == DEFAULT_PROVIDER
    assert connect(base_url=HERE).origin == HERE
    assert connect(base_url=HERE, simulated=True).simulated


def test_without_a_key_there_is_no_provider_but_a_keyless_one() -> None:
    assert not has_key()
    with pytest.raises(UsageError, match=key_variable()):
        connect()
    assert connect(base_url=HERE, keyless=True).origin == HERE


@pytest.mark.parametrize("name", ["", "nowhere", "catalog", "base", "atlas.client", "../atlas"])
def test_what_is_no_provider_is_said(name: str) -> None:
    """Nor is any module beside them one; the message names one that is."""
    with pytest.raises(
        UsageError, match=r"there is no provider .*(; there are atlas, fal|: did you mean)"
    ):
        connect(name)


def test_capabilities_are_asked_for() -> None:
    """Each by itself: one may have them all, or none."""
    atlas, fake = connect(base_url=HERE, keyless=True), FakeProvider()
    account = FakeAccount(prices={"m": Decimal(1)})
    for capability, having in (
        (Uploader, (atlas, fake, account)),
        (HasQuotes, (atlas, account)),
        (HasBalance, (atlas, account)),
        (HasBill, (atlas,)),
        (HasCatalogue, (atlas,)),
    ):
        for provider in (atlas, fake, account):
            assert isinstance(provider, capability) == any(provider is one for one in having)


def test_a_provider_that_lists_no_models_has_a_catalogue_that_says_so() -> None:
    """Nothing is taken for its models that another provider has."""
    catalogue = asyncio.run(get_catalogue(FakeProvider()))
    assert (catalogue.models, catalogue.trouble) == ((), "the provider lists no models")
    _, found = asyncio.run(find_models(FakeProvider(), ["a/b"]))
    assert found["a/b"].model is None
    assert found["a/b"].near == ()
