"""Which certificates are trusted, and what to do where the way to an API is set up wrongly."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

import aiohttp
from yarl import URL

from asyncpipe.errors import UsageError

_OURS = ("SSL_CERT_FILE", "SSL_CERT_DIR")

_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""What other programs read for the same; SSL_CERT_FILE, which OpenSSL itself reads, goes first."""

ENCODE = "in its user and password @ is written %40, # %23, / %2F, ? %3F and % %25"


def tls_context() -> ssl.SSLContext | bool:
    """What a connector's ``ssl`` is to be: True for the certificates that this machine trusts.

    Raises UsageError for REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where they name no certificates.
    """
    ours = tuple(os.environ.get(name, "") for name in _OURS)
    if any(ours):
        return _by_openssl(ours)
    name = next((each for each in _OTHERS if os.environ.get(each)), None)
    return True if name is None else _of(name, os.environ[name])


@lru_cache(maxsize=2)
def _by_openssl(values: tuple[str, ...]) -> ssl.SSLContext:
    """OpenSSL's own choice, as the environment has it by now and not when aiohttp was imported."""
    return _with_protocols(ssl.create_default_context())


@lru_cache(maxsize=2)
def _of(name: str, place: str) -> ssl.SSLContext:
    folder = Path(place).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if folder else place, capath=place if folder else None
        )
    except (OSError, ValueError) as exc:
        raise UsageError(
            f"{name} names {place!r}, which holds no certificates that can be read ({exc}): "
            "correct it, or unset it"
        ) from None
    return _with_protocols(context)


def _with_protocols(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(("http/1.1",))
    return context


def remedy_for(exc: Exception, proxy: str | None) -> str | None:
    """What the user can do about a connection that failed; None: it may come right by itself."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return _for_certificate()
    if isinstance(exc, aiohttp.ClientHttpProxyError) and exc.status == 407:
        url = URL(proxy or "")
        return (
            f"The proxy {url.host}:{url.port} wants a user and a password (407): write them into "
            f"HTTPS_PROXY, like http://USER:PASSWORD@{url.host}:{url.port}; {ENCODE}"
        )
    return None


def _for_certificate() -> str:
    missing = [
        f"; {name} names {os.environ[name]!r}, which is not there"
        for name in _OURS
        if os.environ.get(name) and not Path(os.environ[name]).exists()
    ]
    return (
        "If a proxy or firewall of yours looks into TLS, let SSL_CERT_FILE name the file with its "
        f"CA certificate (and those that you trust besides){''.join(missing)}. Else check the base "
        "URL and this machine's clock"
    )
