"""Standard Webhooks: literal signatures, what is refused, and the standard's own package."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from asyncpipe.errors import UsageError, WebhookRefused
from asyncpipe.webhooks.delivery import LARGEST_BODY, Delivery
from asyncpipe.webhooks.standard import StandardWebhooks, sign
from tests.support.signed import (
    AT,
    NOW,
    OTHER,
    SECRET,
    STANDARD,
    STANDARD_BODY,
    V1A,
    WHPK,
    later,
)


def taken(
    headers: Any = STANDARD,
    body: Any = STANDARD_BODY,
    now: datetime = NOW,
    secrets: Any = SECRET,
) -> Delivery:
    return asyncio.run(StandardWebhooks(secrets).verify(headers, body, now))


def refused(*args: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(WebhookRefused) as caught:
        taken(*args, **options)
    assert "p1" not in str(caught.value), "a message repeats nothing of the body"
    return caught.value.word, caught.value.status


def test_a_signed_delivery_is_read() -> None:
    """With the literal signature that the standard's own package makes."""
    assert taken() == Delivery(
        prediction_id="p1",
        status="succeeded",
        payload={"id": "p1", "status": "succeeded"},
        delivery_id="msg_1",
        at=NOW,
    )


def test_the_standards_own_example() -> None:
    """Its secret, its body, its signature."""
    headers = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "headers",
    [
        {name.upper(): value for name, value in STANDARD.items()},
        [(name.encode(), value.encode()) for name, value in STANDARD.items()],
        {
            **STANDARD,
            "webhook-signature": f"v1,AAAA v2,?? v1a,{'A' * 86} {STANDARD['webhook-signature']}",
        },
        {**STANDARD, "webhook-signature": STANDARD["webhook-signature"].rstrip("=")},
    ],
    ids=["capitals", "pairs of bytes", "one of several", "without padding"],
)
def test_headers_come_in_many_forms(headers: Any) -> None:
    """As mappings or pairs, and with the signatures of other keys beside ours."""
    assert taken(headers).prediction_id == "p1"


def test_public_keys_will_do() -> None:
    """``v1a``, alone or beside a secret; the other kind's signature is none."""
    headers = {**STANDARD, "webhook-signature": V1A}
    assert taken(headers, secrets=WHPK).prediction_id == "p1"
    assert taken(headers, secrets=[OTHER, WHPK]).prediction_id == "p1"
    assert refused(headers, secrets=SECRET) == ("forged", 401)
    assert refused(secrets=WHPK) == ("forged", 401)
    swapped = {**STANDARD, "webhook-signature": V1A.replace("v1a,", "v1,")}
    assert refused(swapped, secrets=[SECRET, WHPK]) == ("forged", 401)


def test_a_secret_can_be_replaced() -> None:
    """The new one and the old one are right meanwhile."""
    assert taken(secrets=[OTHER, SECRET]).prediction_id == "p1"
    assert refused(secrets=[OTHER]) == ("forged", 401)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp"])
@pytest.mark.parametrize("odd", [" ", "\t", "\n", "\xa0", "\x00"])
def test_blanks_in_a_signed_header_are_refused(name: str, odd: str) -> None:
    """Even where they are signed: who passes them on may take them away."""
    for value in (odd + STANDARD[name], STANDARD[name] + odd, odd):
        headers = {**STANDARD, name: value}
        assert refused(headers) == ("malformed", 400)
    message = f"a{odd}b"
    assert refused({**sign(SECRET, message, AT, STANDARD_BODY)}) == ("malformed", 400)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-timestamp", str(AT + 1)),
        ("webhook-signature", "v1,5rikjzhrgW3OuwNDpiFA10i0Ymg1KNmwYj/wRKdeyJI="),
        ("webhook-signature", "v1,*5rikjzhrgW3OuwNDpiFA10i0Ymg1KNmwYj/wRKdexJI="),
        ("webhook-signature", "v2,5rikjzhrgW3OuwNDpiFA10i0Ymg1KNmwYj/wRKdexJI="),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1"),
    ],
)
def test_what_is_not_signed_so_is_forged(name: str, value: str) -> None:
    """Id, time and body are under the signature, each byte of it counts."""
    assert refused({**STANDARD, name: value}) == ("forged", 401)


def test_each_byte_of_the_body_counts() -> None:
    """The same JSON, written otherwise, is another body."""
    again = json.dumps(json.loads(STANDARD_BODY)).encode()
    assert refused(body=again) == ("forged", 401)
    assert refused(body=b"") == ("forged", 401)
    with pytest.raises(TypeError, match="raw bytes"):
        taken(body=STANDARD_BODY.decode())


@pytest.mark.parametrize("name", list(STANDARD))
def test_a_header_that_is_missing_or_twice_there_is_refused(name: str) -> None:
    """Two values: one may be signed, the other be read."""
    without = {k: v for k, v in STANDARD.items() if k != name}
    assert refused(without) == ("malformed", 400)
    assert refused([*STANDARD.items(), (name.title(), STANDARD[name])]) == ("malformed", 400)


@pytest.mark.parametrize("value", ["", "1e9", "-1", "1.5", "٣", "9" * 13, "now"])
def test_a_time_is_a_whole_number(value: str) -> None:
    """Of plain digits."""
    assert refused({**STANDARD, "webhook-timestamp": value}) == ("malformed", 400)


def test_the_window_is_five_minutes_each_way() -> None:
    """To the second, and counted from the time that is signed."""
    assert taken(now=later(300)).at == taken(now=later(-300)).at == NOW
    assert refused(now=later(301)) == refused(now=later(-301)) == ("stale", 400)


def test_the_same_delivered_twice_is_a_replay_and_signed_anew_is_none() -> None:
    """A sender that tries again signs again; whoever recorded it cannot."""

    async def main() -> None:
        verifier = StandardWebhooks(SECRET)
        await verifier.verify(STANDARD, STANDARD_BODY, NOW)
        for moment in (NOW, later(299)):
            with pytest.raises(WebhookRefused) as caught:
                await verifier.verify(STANDARD, STANDARD_BODY, moment)
            assert (caught.value.word, caught.value.status) == ("replayed", 409)
        padded = {**STANDARD, "webhook-signature": STANDARD["webhook-signature"].rstrip("=")}
        with pytest.raises(WebhookRefused, match="before"):
            await verifier.verify(padded, STANDARD_BODY, NOW)
        again = await verifier.verify(
            sign(SECRET, "msg_1", AT + 1, STANDARD_BODY), STANDARD_BODY, NOW
        )
        assert again.delivery_id == "msg_1"

    asyncio.run(main())


def test_what_was_refused_is_not_remembered() -> None:
    """A forgery does not keep the true one out."""

    async def main() -> None:
        verifier = StandardWebhooks(SECRET)
        with pytest.raises(WebhookRefused, match="signature"):
            await verifier.verify({**STANDARD, "webhook-signature": "v1,AAAA"}, STANDARD_BODY, NOW)
        await verifier.verify(STANDARD, STANDARD_BODY, NOW)

    asyncio.run(main())


def test_bodies_are_bounded_and_objects() -> None:
    """A mebibyte, and JSON with an id in it."""
    for body, said in [
        (b" " * (LARGEST_BODY + 1), ("too large", 413)),
        (b"[]", ("malformed", 400)),
        (b"\xff\xfe", ("malformed", 400)),
        (b"[" * 100_000, ("malformed", 400)),
        (b"{}", ("malformed", 400)),
        (b'{"id":7}', ("malformed", 400)),
    ]:
        assert refused(sign(SECRET, "m", AT, body), body) == said
    body = b'{"id":"p"' + b" " * (LARGEST_BODY - 10) + b"}"
    assert taken(sign(SECRET, "m", AT, body), body).prediction_id == "p"


def test_too_many_signatures_are_not_looked_at() -> None:
    """Each costs time."""
    headers = {**STANDARD, "webhook-signature": " ".join(["v1,AAAA"] * 17)}
    assert refused(headers) == ("malformed", 400)


def test_it_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret with every signature, whatever the first ones say."""
    compared = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", compare)
    both = f"{STANDARD['webhook-signature']} v1,AAAA"
    taken({**STANDARD, "webhook-signature": both}, secrets=[SECRET, OTHER])
    assert len(compared) == 4


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_" + "A" * 88, "whsec_ä", "whpk_AAAA"]
)
def test_what_is_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    """Nothing would be checked with it, or everything be right."""
    with pytest.raises(UsageError) as caught:
        StandardWebhooks(secret)
    assert len(secret) < 12 or secret not in str(caught.value)
    with pytest.raises(UsageError, match="no secret"):
        StandardWebhooks([])


def test_secrets_are_not_shown() -> None:
    """Not in a repr either."""
    assert repr(StandardWebhooks([SECRET, WHPK])) == "StandardWebhooks(2 secrets)"


@given(
    key=st.binary(min_size=24, max_size=64),
    message=st.text("abcXYZ019_-.", min_size=1, max_size=40),
    data=st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
)
def test_it_signs_as_the_standards_package_does(
    key: bytes, message: str, data: dict[str, str]
) -> None:
    """And each takes what the other has signed."""
    secret = f"whsec_{base64.b64encode(key).decode()}"
    at = datetime.now(UTC).replace(microsecond=0)
    body = json.dumps({"id": "p", "data": {"id": "p", **data}}).encode()
    ours, theirs = sign(secret, message, int(at.timestamp()), body), Webhook(secret)
    assert ours["webhook-signature"] == theirs.sign(message, at, body.decode())
    assert theirs.verify(body, ours) == json.loads(body)
    assert taken(ours, body, at, secret).delivery_id == message
    wrong = {**ours, "webhook-id": f"{message}x"}
    with pytest.raises(WebhookVerificationError):
        theirs.verify(body, wrong)
    with pytest.raises(WebhookRefused):
        taken(wrong, body, at, secret)
