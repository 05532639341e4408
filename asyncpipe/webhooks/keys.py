"""Public keys that somebody publishes: fetched, kept for a while, asked for again with measure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import orjson
from yarl import URL

from asyncpipe.errors import AsyncpipeError, UsageError, WebhookKeysAway, WebhookRefused
from asyncpipe.http import USER_AGENT, connector_options, is_loopback, proxy_for
from asyncpipe.webhooks.delivery import FORGED, from_base64

logger = logging.getLogger("asyncpipe.webhooks")

KEPT_S = 86_400.0
"""How long keys are taken for today's."""

COOL_DOWN_S = 60.0
"""Whatever is asked for, keys are fetched at most this often: names of keys cost nothing."""

LARGEST_SET = 64 * 1024

FETCH_S = 10.0

MOST_KEYS = 64


def is_signed(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether ``signature`` is the Ed25519 one of ``text`` by the public ``key``.

    Raises UsageError without the package that does it.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as exc:
        raise UsageError(NEEDS) from exc
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


NEEDS = (
    "signatures of webhooks need one more package: pip install 'asyncpipe[webhooks]', then start "
    "again"
)


def read_keys(body: bytes) -> dict[str, bytes]:
    """The Ed25519 keys of a JSON Web Key Set, by their ids; those without one by their place.

    Raises ValueError for what is none.
    """
    document = orjson.loads(body)
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise ValueError("it has no list of keys")  # noqa: TRY004 - of JSON, not of a program
    keys = {}
    for place, each in enumerate(listed[:MOST_KEYS]):
        if not isinstance(each, Mapping) or (each.get("kty"), each.get("crv")) != OKP:
            continue
        text = each.get("x")
        key = from_base64(text, url_safe=True) if isinstance(text, str) else None
        if key is not None and len(key) == 32:
            keys[str(each.get("kid", f"#{place}"))] = key
    if not keys:
        raise ValueError("it has no Ed25519 key")
    return keys


OKP = ("OKP", "Ed25519")


class KeyRing:
    """The keys at one address: kept for a day, fetched anew for one that is not known.

    ``fetch`` gets them. However many deliveries name a key that there is not, it is called once
    in COOL_DOWN_S.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._lock = asyncio.Lock()
        self._keys: dict[str, bytes] = {}
        self._until = 0.0  # by the loop's clock
        self._tried_at: float | None = None

    async def check(self, text: bytes, signature: bytes, key_id: str | None) -> None:
        """See that ``signature`` is of ``text``; without ``key_id`` by any of the keys.

        Raises WebhookRefused, or WebhookKeysAway where the keys cannot be had.
        """
        known = self._may_know(key_id, asyncio.get_running_loop().time())
        if known and self._opens(text, signature, key_id):
            return
        await self._renew(key_id)
        if not self._opens(text, signature, key_id):
            raise forged()

    def _may_know(self, key_id: str | None, clock: float) -> bool:
        return clock < self._until and (key_id is None or key_id in self._keys)

    def _opens(self, text: bytes, signature: bytes, key_id: str | None) -> bool:
        keys = self._keys.values() if key_id is None else [self._keys.get(key_id, b"")]
        return any([is_signed(key, signature, text) for key in keys if key])

    async def _renew(self, key_id: str | None) -> None:
        """Fetch the keys, unless this one is known or that was done just now.

        Raises WebhookKeysAway.
        """
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if key_id is not None and self._may_know(key_id, clock()):
                return  # it is known, or was fetched while this one waited
            if self._tried_at is not None and clock() < self._tried_at + COOL_DOWN_S:
                if clock() < self._until:
                    return
                raise WebhookKeysAway(AWAY)
            self._tried_at = clock()
            try:
                self._keys = read_keys(await self._fetch())
            except (AsyncpipeError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as exc:
                logger.warning(
                    "the keys of webhooks cannot be had: %s",
                    str(exc)[:200] or type(exc).__name__,
                    extra={"action": "webhook.keys"},
                )
                raise WebhookKeysAway(AWAY) from None
            self._until = clock() + KEPT_S


AWAY = "the keys to check it with cannot be had at the moment: deliver it again"


def forged() -> WebhookRefused:
    """What is said of a signature that is not right."""
    return WebhookRefused("the signature is not right", "forged", FORGED)


async def fetch_keys(url: str) -> bytes:
    """Get a key set without any credentials; over https, or from this machine.

    Raises UsageError for another address, and what the request raises.
    """
    target = URL(url)
    local = is_loopback(target.host or "")
    if target.scheme != "https" and not (local and target.scheme == "http"):
        raise UsageError(f"keys of webhooks come over https, not from {target.origin()}")
    connector = aiohttp.TCPConnector(**connector_options(guarded=not local))
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session,
        session.get(target, allow_redirects=False, proxy=proxy_for(url)) as response,
    ):
        if response.status != 200:
            raise ValueError(f"{target.host} answered {response.status}")
        body = await response.content.read(LARGEST_SET + 1)
        while len(body) <= LARGEST_SET and (more := await response.content.read(LARGEST_SET)):
            body += more
    if len(body) > LARGEST_SET:
        raise ValueError(f"{target.host} answered more than {LARGEST_SET} bytes")
    return body
