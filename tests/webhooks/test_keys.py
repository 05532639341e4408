"""Keys that are published: fetched once, kept, and asked for again with measure; virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from asyncpipe.errors import UsageError, WebhookKeysAway, WebhookRefused
from asyncpipe.testing import run_virtual
from asyncpipe.webhooks.keys import COOL_DOWN_S, KEPT_S, KeyRing, fetch_keys, is_signed, read_keys
from tests.support.servers import serving
from tests.support.signed import JWKS, X

TEXT = b"1764342000." + (
    b'{"session_id":"0b1c","event_type":"image.task.terminal","status":"OK","payload":'
    b'{"status":"failed","outputs":[],"error_code":1039},"error":""}'
)
SIGNATURE = bytes.fromhex(
    "275d98e24e1a1a08669c4f857ff088139df795e89ed8776525da3d21b17112de"
    "c15a76f8654b448f6dd102cf89d6bcc1177fbf7faafeb9c886b701b7e96a2002"
)


class Published:
    """A key set at an address that may be away."""

    def __init__(self, body: bytes = JWKS) -> None:
        self.body, self.fetched, self.away = body, 0, False

    async def fetch(self) -> bytes:
        self.fetched += 1
        await asyncio.sleep(1)
        if self.away:
            raise OSError("nobody there")
        return self.body


async def word(ring: KeyRing, key_id: str | None = "k1", text: bytes = TEXT) -> str:
    try:
        await ring.check(text, SIGNATURE, key_id)
    except WebhookRefused as exc:
        return exc.word
    return "right"


def test_a_literal_signature_is_right_and_no_other() -> None:
    """Of another text, by another key, cut, or too long."""
    key = read_keys(JWKS)["k1"]
    assert len(SIGNATURE) == 64
    assert is_signed(key, SIGNATURE, TEXT)
    assert not is_signed(key, SIGNATURE, TEXT + b" ")
    assert not is_signed(key[::-1], SIGNATURE, TEXT)
    assert not is_signed(key, SIGNATURE[:-1], TEXT)
    assert not is_signed(key, b"", TEXT)


def test_keys_are_fetched_once_for_many_deliveries() -> None:
    """Who comes while they are fetched waits for them."""

    async def main() -> None:
        published = Published()
        ring = KeyRing(published.fetch)
        assert await asyncio.gather(*[word(ring) for _ in range(20)]) == ["right"] * 20
        assert published.fetched == 1

    run_virtual(main())


def test_an_unknown_key_is_asked_for_once_a_minute() -> None:
    """A forger who names keys that there are not makes us ask nobody."""

    async def main() -> None:
        published = Published()
        ring = KeyRing(published.fetch)
        assert await word(ring) == "right"
        await asyncio.sleep(COOL_DOWN_S)
        assert [await word(ring, f"k{n}") for n in range(9, 60)] == ["forged"] * 51
        assert published.fetched == 2
        assert await word(ring) == "right"
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring, "k9") == "forged"
        assert published.fetched == 3

    run_virtual(main())


def test_a_forgery_by_a_known_key_makes_nobody_ask() -> None:
    """Its name says nothing new."""

    async def main() -> None:
        published = Published()
        ring = KeyRing(published.fetch)
        assert await word(ring) == "right"
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring, text=b"another") == "forged"
        assert published.fetched == 1

    run_virtual(main())


def test_a_new_key_is_found() -> None:
    """The sender replaced its key: the next fetch has it, and the old one is gone."""

    async def main() -> None:
        published = Published()
        ring = KeyRing(published.fetch)
        assert await word(ring) == "right"
        published.body = JWKS.replace(b'"k1"', b'"k2"')
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring, "k2") == "right"
        assert published.fetched == 2
        assert await word(ring, "k1") == "forged"

    run_virtual(main())


def test_without_a_name_any_key_will_do() -> None:
    """Some senders do not say which; then a wrong signature may be by a new key."""

    async def main() -> None:
        other = {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}
        own = json.loads(JWKS)["keys"][0]
        del own["kid"]
        published = Published(json.dumps({"keys": [other]}).encode())
        ring = KeyRing(published.fetch)
        assert await word(ring, None) == "forged"
        published.body = json.dumps({"keys": [other, own]}).encode()
        assert await word(ring, None) == "forged"
        assert published.fetched == 1
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring, None) == "right"

    run_virtual(main())


def test_keys_that_are_away_have_it_delivered_again() -> None:
    """503, and they are not asked for at every delivery either."""

    async def main() -> None:
        published = Published()
        published.away = True
        ring = KeyRing(published.fetch)
        with pytest.raises(WebhookKeysAway) as caught:
            await ring.check(TEXT, SIGNATURE, "k1")
        assert caught.value.status == 503
        assert await word(ring) == "keys away"
        assert published.fetched == 1
        published.away = False
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring) == "right"
        published.away = True
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(ring, "k2") == "keys away", "it may be a new one"
        assert await word(ring) == "right", "of those known nothing has changed"

    run_virtual(main())


def test_keys_are_kept_for_a_day() -> None:
    """Then one that was withdrawn is right no longer."""

    async def main() -> None:
        published = Published()
        ring = KeyRing(published.fetch)
        assert await word(ring) == "right"
        published.body = JWKS.replace(b'"k1"', b'"k2"')
        await asyncio.sleep(KEPT_S - 60)
        assert await word(ring) == "right"
        await asyncio.sleep(120)
        assert await word(ring) == "forged"

    run_virtual(main())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[7]}',
        b'{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","kid":"k1"}]}',
        b'{"keys":[{"kty":"OKP","crv":"X25519","x":"%s"}]}' % X.encode(),
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}',
        b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":7}]}',
    ],
)
def test_what_is_no_key_set_is_as_if_it_were_away(body: bytes) -> None:
    """A page of a gateway must not make true deliveries forged."""
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own, too
        read_keys(body)

    async def main() -> str:
        return await word(KeyRing(Published(body).fetch))

    assert run_virtual(main()) == "keys away"


def test_keys_are_fetched_over_https_or_from_this_machine() -> None:
    """Without credentials, without redirects, and not without end."""
    seen: list[Any] = []

    async def keys(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(dict(request.headers))
        match request.path:
            case "/moved":
                return web.Response(status=302, headers={"Location": "/jwks.json"})
            case "/large":
                return web.Response(body=b" " * 70_000)
        return web.Response(body=JWKS)

    async def main() -> None:
        async with serving(keys) as base:
            assert await fetch_keys(f"{base}/jwks.json") == JWKS
            for path in ("moved", "large"):
                with pytest.raises(ValueError, match=r"127\.0\.0\.1 answered"):
                    await fetch_keys(f"{base}/{path}")

    asyncio.run(main())
    assert not any("Authorization" in headers for headers in seen)
    with pytest.raises(UsageError, match="https"):
        asyncio.run(fetch_keys("http://api.example/jwks.json"))
