"""Which hosts media may be fetched from: an answer must not send us into the user's own network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from asyncpipe.errors import DownloadError
from asyncpipe.providers.http import is_loopback

_FAKE_DNS = ipaddress.ip_network("198.18.0.0/15")
"""Local proxies common in China answer every name with addresses from here; they are no target."""


def is_public(address: str) -> bool:
    """Whether an IP address is out in the world (or a local proxy's stand-in for one that is)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    return ip.is_global or (ip.version == 4 and ip in _FAKE_DNS)


def on_loopback(origin: str) -> bool:
    """Whether an API is on this machine (a simulator, a test): then its media may be, too."""
    host = urlsplit(origin).hostname
    return host is None or is_loopback(host)


def check_host(host: str | None) -> None:
    """Raise DownloadError for a private address; names are checked as they resolve."""
    try:
        public = is_public(host or "")
    except ValueError:
        public = bool(host) and host != "localhost"
    if not public:
        raise DownloadError(f"an output on {host!r} is refused: it is not a public address")


class PublicResolver(AbstractResolver):
    """Resolve names, and refuse those that lead to private, loopback or link-local addresses."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve ``host``; raises DownloadError when any of its addresses is not public."""
        found = await self._resolver.resolve(host, port, family)
        for address in found:
            check_host(address["host"])
        return found

    async def close(self) -> None:
        """Nothing to close."""
        await self._resolver.close()


def connector_options(*, guarded: bool) -> dict[str, Any]:
    """What a connector needs so that only public addresses are reached."""
    return {"resolver": PublicResolver()} if guarded else {}
