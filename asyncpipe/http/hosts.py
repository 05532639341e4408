"""Which hosts media may be fetched from: an answer must not send us into the user's own network."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from asyncpipe.errors import DownloadError, UsageError
from asyncpipe.http.trust import ENCODE, tls_context

_FAKE_DNS = ipaddress.ip_network("198.18.0.0/15")
"""Local proxies common in China answer every name with addresses from here; they are no target."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""Networks without IPv4 reach it through addresses from here; the last 32 bits are the target."""

_INSIDE = tuple(
    ipaddress.ip_network(each)
    for each in (
        "192.0.0.0/24",  # some Pythons call most of it global; Oracle's metadata are there
        "192.88.99.0/24",  # relays nobody runs any more
        "168.63.129.16/32",  # Azure's, in every machine of it
    )
)
"""Addresses that mean something else from inside a network, though Python may call them global."""

_NAME = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+")

_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")

_NEVER_PUBLIC = re.compile(
    r"(?:.*\.)?(?:localhost|localdomain|local|internal|intranet|private|corp|lan|home|svc|arpa"
    r"|fritz\.box|metadata\.tencentyun\.com|metadata\.packet\.net|metadata\.platformequinix\.com"
    # Whose names stand for the address in them, or for this machine.
    r"|nip\.io|sslip\.io|xip\.io|backname\.io|nip\.direct|ip6\.name|traefik\.me|1u\.ms|rbndr\.us"
    r"|localtest\.me|lvh\.me|vcap\.me|fuf\.me|lacolhost\.com|local\.gd|localho\.st|localhost\.direct"
    r"|127-0-0-1\.org\.uk)"
)
"""Names that can only lead inside: a proxy resolves them where nobody looks at the address."""

_SPELLED_ADDRESS = re.compile(r"(?:.*\.)?((?:[0-9]{1,3}[.-]){3}[0-9]{1,3})\..*")
"""A name with a whole address in it, as services of names for addresses write them."""


def is_public(address: str) -> bool:
    """Whether an IP address is out in the world (or a local proxy's stand-in for one that is)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _inner(ip)
        if inner is None:
            # Only 2000::/3 is given out; Python calls fec0:: and ::127.0.0.1 global as well.
            return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_site_local)
        ip = inner
    if any(ip in network for network in _INSIDE):
        return False
    return (ip.is_global and not ip.is_multicast) or ip in _FAKE_DNS


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that is meant by an IPv6 one, or None."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def on_loopback(origin: str) -> bool:
    """Whether an API is on this machine (a simulator, a test): then its media may be, too."""
    host = urlsplit(origin).hostname
    return host is None or is_loopback(host)


def check_host(host: str | None) -> None:
    """Raise DownloadError for a private address; names are checked as they resolve.

    Names that can only be private are refused at once, since a proxy resolves them unseen by us.
    """
    if not _may_be_public(host or ""):
        raise DownloadError(f"an output on {host!r} is refused: it is not a public address")


def _may_be_public(host: str) -> bool:
    """Judge a host as the client will spell it when it connects.

    aiohttp takes ``127.1``, ``2130706433``, ``127.0.0.1.`` and wide digits for addresses, which no
    resolver sees; ``ipaddress`` takes them for names. Whatever ends in a number must be an
    ordinary address.
    """
    try:
        name = (URL.build(scheme="http", host=host).raw_host or "").lower().removesuffix(".")
    except ValueError:
        return False
    with suppress(ValueError):
        return is_public(name)
    if _ENDS_IN_NUMBER.fullmatch(name) or _NEVER_PUBLIC.fullmatch(name):
        return False
    if (spelled := _SPELLED_ADDRESS.fullmatch(name)) is not None:
        with suppress(ValueError):
            if not is_public(spelled[1].replace("-", ".")):
                return False
    return _NAME.fullmatch(name) is not None


class PublicResolver(AbstractResolver):
    """Resolve names, and refuse those that lead to private, loopback or link-local addresses.

    The proxies that the environment names are the user's own and may be anywhere.
    """

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve ``host``; raises DownloadError when any of its addresses is not public."""
        found = await self._resolver.resolve(host, port, family)
        if (host, port) in _proxies():
            return found
        for address in found:
            check_host(address["host"])
        return found

    async def close(self) -> None:
        """Nothing to close."""
        await self._resolver.close()


def _proxies() -> set[tuple[str | None, int | None]]:
    """Host and port of every proxy of the environment."""
    found = set()
    for proxy in getproxies().values():
        try:
            url = URL(proxy if "://" in proxy else f"http://{proxy}")
            found.add((url.raw_host, url.port))
        except ValueError:  # said where it is used
            continue
    return found


def connector_options(*, guarded: bool) -> dict[str, Any]:
    """What a connector needs: the certificates it trusts; ``guarded``: for public addresses only.

    Raises UsageError for certificates that cannot be read.
    """
    trusted = {"ssl": tls_context()}
    return {**trusted, "resolver": PublicResolver()} if guarded else trusted


def proxy_for(url: str) -> str | None:
    """Return the proxy the environment names for ``url``, or None; loopback never has one.

    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, or the system's settings on Windows and
    macOS. Raises UsageError for a proxy that does not speak HTTP or has no address.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise UsageError(
            f"the proxy for {host} is a {scheme} proxy, which cannot be used: set "
            f"{parts.scheme.upper()}_PROXY to an http:// proxy, or put {host} into NO_PROXY"
        )
    if not _is_address(proxy):
        raise UsageError(
            f"the proxy for {host} has no address that can be used: set "
            f"{parts.scheme.upper()}_PROXY to one like http://127.0.0.1:7890 or "
            f"http://USER:PASSWORD@127.0.0.1:7890, or unset it; {ENCODE}"
        )
    return proxy


def _is_address(proxy: str) -> bool:
    """Whether a proxy's URL names a host and, if at all, a port; it may hold a password.

    What stands after the host must not be the rest of a password whose # or / was not encoded; and
    HTTP sends user and password in Latin-1.
    """
    try:
        parts, url = urlsplit(proxy), URL(proxy)
        host = parts.hostname or ""
        f"{url.user or ''}{url.password or ''}".encode("latin-1")
    except ValueError:
        return False
    after = proxy.partition("://")[2][len(parts.netloc) :]
    return host != "" and host.isascii() and parts.port != 0 and "@" not in after


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
