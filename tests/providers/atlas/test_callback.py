"""What Atlas Cloud sends back: literal deliveries, and everything that makes one none."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest

from asyncpipe.errors import UsageError, WebhookRefused
from asyncpipe.jobs import Job
from asyncpipe.providers.atlas import AtlasCloud
from asyncpipe.providers.atlas.callback import claim, read
from asyncpipe.webhooks import Delivery, Headers, KeyRing, PublishedKeys
from tests.support.servers import always, noting
from tests.support.signed import AT, JWKS, NOW, later

BODY = (
    b'{"session_id":"0b1c","event_type":"image.task.terminal","status":"OK","payload":'
    b'{"status":"failed","outputs":[],"error_code":1039},"error":""}'
)
SIGNATURE = "J12Y4k4aGghmnE-Ff_CIE533leie2HdlJdo9IbFxEt7BWnb4ZUtEj23RAs-J1rzBF3-_f6r-uciGtwG36WogAg"
HMAC = "527f845d804b76c96013a48761f489566496d4ff2a9819c3ba756f9f819cbc9d"
P = "X-AtlasCloud-Webhook-"
HEADERS = {
    f"{P}Id": "0b1c",
    f"{P}Event": "image.task.terminal",
    f"{P}Timestamp": str(AT),
    f"{P}Key-Id": "k1",
    f"{P}Signature-Ed25519": SIGNATURE,
    f"{P}Signature": HMAC,
}


def without(name: str, **others: str) -> dict[str, str]:
    return {k: v for k, v in HEADERS.items() if k != P + name} | {
        P + k.replace("_", "-"): v for k, v in others.items()
    }


def taken(headers: Any = HEADERS, body: bytes = BODY, now: datetime = NOW) -> Delivery:
    async def fetch() -> bytes:
        return JWKS

    async def main() -> Delivery:
        verifier = PublishedKeys(KeyRing(fetch), claim=claim, read=read)
        return await verifier.verify(headers, body, now)

    return asyncio.run(main())


def refused(*args: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(WebhookRefused) as caught:
        taken(*args, **options)
    return caught.value.word, caught.value.status


def test_the_inner_status_counts() -> None:
    """It failed, though the whole says OK."""
    found = taken()
    assert (found.prediction_id, found.status, found.delivery_id) == ("0b1c", "failed", "0b1c")
    assert found.at == NOW
    assert found.payload["payload"]["error_code"] == 1039


def test_without_an_inner_status_the_outer_one_is_said() -> None:
    """A word for people, whatever it is."""
    payload = {"session_id": "p", "status": "ERROR", "payload": None}
    assert read(Headers({}), payload, AT).status == "ERROR"
    odd = {"session_id": "p", "payload": {"status": 7}}
    assert read(Headers({}), odd, AT).status == ""


def test_the_bare_header_counts_once_it_holds_the_signature() -> None:
    """Today it is an HMAC, 64 hex digits; where both are there the named one counts."""
    assert taken(without("Signature-Ed25519", Signature=SIGNATURE)).prediction_id == "0b1c"
    assert taken(without("Signature-Ed25519", Signature=SIGNATURE + "==")).status == "failed"
    assert refused(without("Signature-Ed25519")) == ("malformed", 400)
    assert refused({**HEADERS, f"{P}Signature-Ed25519": "A" * 86}) == ("forged", 401)
    both = {**HEADERS, f"{P}Signature-Ed25519": "A" * 86, f"{P}Signature": SIGNATURE}
    assert refused(both) == ("forged", 401)


@pytest.mark.parametrize("name", ["Timestamp", "Key-Id", "Signature-Ed25519", "Id"])
@pytest.mark.parametrize("odd", [" ", "\t", "\r\n", "\x0b"])
def test_blanks_in_signed_headers_are_refused(name: str, odd: str) -> None:
    """Before and behind, in those that count."""
    for value in (odd + HEADERS[P + name], HEADERS[P + name] + odd):
        assert refused({**HEADERS, P + name: value}) == ("malformed", 400)


@pytest.mark.parametrize("name", ["Timestamp", "Key-Id"])
def test_what_is_missing_is_refused(name: str) -> None:
    """Or there twice."""
    assert refused(without(name)) == ("malformed", 400)
    assert refused([*HEADERS.items(), (P + name, HEADERS[P + name])]) == ("malformed", 400)


def test_time_key_and_body_are_under_the_signature() -> None:
    """And the id that is not has to be the body's."""
    assert refused({**HEADERS, f"{P}Timestamp": str(AT - 1)}) == ("forged", 401)
    assert refused({**HEADERS, f"{P}Key-Id": "k2"}) == ("forged", 401)
    assert refused(body=BODY + b"\n") == ("forged", 401)
    assert refused({**HEADERS, f"{P}Id": "0b1d"}) == ("malformed", 400)
    standard_alphabet = SIGNATURE.replace("-", "+").replace("_", "/")
    assert refused({**HEADERS, f"{P}Signature-Ed25519": standard_alphabet}) == ("malformed", 400)


def test_it_is_stale_after_five_minutes() -> None:
    """Each way."""
    assert taken(now=later(300)).at == NOW
    assert refused(now=later(301)) == refused(now=later(-301)) == ("stale", 400)


def test_a_submit_asks_to_be_called_back_and_the_job_stays_the_same() -> None:
    """The URL is no part of the job; one that the job itself names is the user's affair."""
    url = "http://127.0.0.1:8000/hooks"
    answer = always(b'{"code":200,"data":{"id":"p1","status":"processing","outputs":null}}')

    def job(**params: Any) -> Job:
        return Job(model="demo/text-to-image", prompt="a mug", params=params)

    async def main() -> list[Any]:
        async with noting(answer) as api:
            for webhook_url in (None, url):
                provider = AtlasCloud("k", base_url=api.url, webhook_url=webhook_url)
                async with provider:
                    await provider.submit(job())
                    await provider.submit(job(webhook_url="https://x.example"))
                assert "webhook_url" not in provider.body_of(job())
            return [json.loads(body).get("webhook_url") for body in api.bodies]

    assert asyncio.run(main()) == [None, "https://x.example", url, "https://x.example"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://me.example/hooks", "cannot be called from outside"),
        ("https://10.0.0.1/hooks", "cannot be called from outside"),
        ("https://localhost/hooks", "cannot be called from outside"),
        ("http://127.0.0.1:8000/hooks", "cannot be called from outside"),
        ("hooks", "cannot be called from outside"),
        ("https://me.example:x/", "is no URL"),
        ("https://a:b@me.example/", "leave user and password out"),
        ("https://me.example/" + "x" * 1024, "at most 1024"),
    ],
)
def test_a_url_that_cannot_be_called_is_refused_before_anything_is_bought(
    url: str, why: str
) -> None:
    """The API would refuse every submit for it."""
    with pytest.raises(UsageError, match=why):
        AtlasCloud("k", webhook_url=url)
    assert AtlasCloud("k", webhook_url="https://me.example/h").webhook_url == "https://me.example/h"
