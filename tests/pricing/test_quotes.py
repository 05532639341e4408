"""QuoteBook: what the API answers, read exactly; and which jobs share one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from asyncpipe.errors import (
    BalanceExhausted,
    KeyRefused,
    ProviderError,
    RateLimited,
    Rejected,
    UsageError,
)
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.pricing.price import Prices
from asyncpipe.pricing.quotes import Quote, QuoteBook, price_key
from asyncpipe.providers.atlas.prices import built_in
from asyncpipe.providers.atlas.quote import read_quote

AT = datetime(2026, 11, 25, 6, 30, tzinfo=UTC)
FLUX = "black-forest-labs/flux-2-pro/text-to-image"
VEO = "google/veo3.1/text-to-video"


def read(body: str | bytes, status: int = 200, **headers: str) -> Quote:
    text = body.encode() if isinstance(body, str) else body
    return read_quote(status, headers, text, at=AT)


# As atlas-api.md §5 has it, to the letter.
DOCUMENTED = (
    '{"code":200,"data":{"price":0.976,"origin_price":1.22,"discount":"80","currency":"usd",'
    '"estimated":true,"estimated_tokens":108900}}'
)


def test_the_documented_answer_is_read() -> None:
    """The price is what is paid, its discount taken off already; it is an estimate."""
    assert read(DOCUMENTED) == Quote(
        amount=Decimal("0.976"), asked_at=AT, estimated=True, list_amount=Decimal("1.22")
    )


@pytest.mark.parametrize(
    ("body", "amount", "estimated"),
    [
        ('{"code":"200","data":{"price":3.20,"currency":"USD","estimated":false}}', "3.2", False),
        ('{"code":200,"data":{"price":"0.04"}}', "0.04", False),
        ('{"data":{"price":1}}', "1", False),
        ('{"price":0.6}', "0.6", False),
        ('{"code":200,"data":{"price":0.1,"estimated":"true"}}', "0.1", True),
        ('{"code":200,"data":{"price":0.1,"estimated":1}}', "0.1", True),
        ('{"code":200,"data":{"price":0.1,"estimated":null}}', "0.1", False),
        ('\ufeff{"code":200,"message":"","data":{"price":4e-2}}', "0.04", False),
    ],
)
def test_other_spellings_are_read(body: str, amount: str, estimated: bool) -> None:
    """A string code, text for a number, fields that are missing; what may be an estimate is one."""
    found = read(body)
    assert (found.amount, found.estimated) == (Decimal(amount), estimated)


def test_an_amount_is_exactly_what_was_written() -> None:
    """No float in between: 17 digits and more stay."""
    assert read('{"code":200,"data":{"price":0.1000000000000000055}}').amount == Decimal(
        "0.1000000000000000055"
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"code":200,"data":{}}', "names no price"),
        ('{"code":200,"data":{"price":null}}', "names no price"),
        ('{"code":200,"data":null}', "names no price"),
        ('{"code":200,"data":{"price":"free"}}', "'free' is no amount"),
        ('{"code":200,"data":{"price":-1}}', "'-1' is no amount"),
        ('{"code":200,"data":{"price":true}}', "is no amount"),
        ('{"code":200,"data":{"price":NaN}}', "is no amount"),
        ('{"code":200,"data":{"price":"NaN"}}', "is no amount"),
        ('{"code":200,"data":{"price":1e30}}', "is no amount"),
        ('{"code":200,"data":{"price":[1]}}', "is no amount"),
        ('{"code":200,"data":{"price":1,"currency":"eur"}}', "in 'eur', not in USD"),
        ('{"code":200,"data":{"price":0,"origin_price":0}}', "0 USD; .*per_job: 0"),
        ("<html><title>hello</title></html>", "names no price"),
        ("[1]", "names no price"),
        ("[" * 100_000, "names no price"),
    ],
)
def test_a_good_answer_without_a_price_is_no_quote(body: str, why: str) -> None:
    """Nothing is guessed: such a job is priced by the next source. 0 would hold no budget."""
    with pytest.raises(Rejected, match=why):
        read(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, '{"code":400,"msg":"Invalid request parameters","data":null}', Rejected),
        (404, '{"code":404,"msg":"model not found","data":null}', Rejected),
        (200, '{"code":404,"msg":"model not found","data":null}', Rejected),
        (401, '{"code":401,"msg":"unauthorized","data":null}', KeyRefused),
        (402, '{"code":402,"msg":"insufficient balance","data":null}', BalanceExhausted),
        (429, '{"code":429,"msg":"rate limit exceeded","data":null}', RateLimited),
    ],
)
def test_refusals_are_told_apart(status: int, body: str, kind: type[ProviderError]) -> None:
    """Of one request, of all requests, or for now; with the API's own words."""
    with pytest.raises(kind) as caught:
        read(body, status)
    assert type(caught.value) is kind
    assert json.loads(body)["msg"] in str(caught.value)


@pytest.mark.parametrize("status", [403, 404, 500, 503, 301, 524])
def test_a_page_says_nothing_of_the_job(status: int) -> None:
    """HTML is a gateway's: not a refusal of this request."""
    with pytest.raises(ProviderError) as caught:
        read("<html><title>404 Not Found</title></html>", status)
    assert type(caught.value) is ProviderError
    assert caught.value.status == status


def test_a_wish_to_wait_is_kept() -> None:
    with pytest.raises(RateLimited) as caught:
        read("{}", 429, **{"Retry-After": "3", "X-Request-ID": "r1"})
    assert (caught.value.retry_after_s, caught.value.request_id) == (3.0, "r1")


def job(model: str = VEO, prompt: str = "p", **params: Any) -> Job:
    return Job(model=model, prompt=prompt, params=params)


SAME = [
    job(duration=8),
    job(duration=8, prompt="something else"),
    job(duration=8, seed=7),
    job(duration=8, negative_prompt="blurry"),
    job(duration=8, webhook_url="https://example.com/1"),
]
ONE_IMAGE = [
    job(duration=8, image="https://example.com/1.png"),
    job(duration=8, image="data:image/png;base64,AAAA"),
    job(duration=8, image="./picture.png"),
    job(duration=8, image="C:\\图片\\2.png"),
]
NESTED = [
    job(references=[{"image": "./1.png", "weight": 1}, {"image": "https://a/2.png"}]),
    job(references=[{"image": "https://a/3.png", "weight": 1}, {"image": "./4.png"}]),
]
OTHER = [
    job(duration=6),
    *(job(duration=each) for each in (1, 1.0, True, "1")),
    job(duration=8, generate_audio=False),
    job(duration=8, audio=True),
    job(duration=8, resolution="4k"),
    job(duration=8, num_images=2),
    job(duration=8, images=["https://a/1", "https://a/2"]),
    job(duration=8, last_image="https://a/1"),
    job(references=[{"image": "./1.png", "weight": 2}, {"image": "./2.png"}]),
    job(model=FLUX, duration=8),
    Job(model=VEO, type=JobType.IMAGE, prompt="p", params={"duration": 8}),
]


def test_like_jobs_share_a_price_key() -> None:
    """Prompts, seeds and which media are given do not change a price."""
    assert len({price_key(each) for each in SAME}) == 1
    assert len({price_key(each) for each in ONE_IMAGE}) == 1
    assert len({price_key(each) for each in NESTED}) == 1


def test_whatever_may_change_a_price_changes_the_key() -> None:
    """Every other field, and how many media are given."""
    assert len({price_key(each) for each in [SAME[0], ONE_IMAGE[0], NESTED[0], *OTHER]}) == 3 + len(
        OTHER
    )


def test_audio_is_priced_by_how_much_is_said() -> None:
    """Texts of one length share a quote; in another script they are longer."""
    texts = ["hello", "jello", "hallo!", "你好吗朋友"]
    keys = [price_key(Job(model="x/y-to-speech", params={"text": text})) for text in texts]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_the_order_of_fields_is_not_in_the_key() -> None:
    assert price_key(job(duration=8, resolution="4k")) == price_key(
        job(resolution="4k", duration=8)
    )


def test_fields_json_does_not_have_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be sent as JSON"):
        price_key(job(duration=object()))


def prices(quote: Quote | None, **options: Any) -> Prices:
    quotes = QuoteBook()
    if quote is not None:
        quotes.add(price_key(job(duration=8)), quote)
    return Prices(books=(built_in(),), quotes=quotes, **options)


def test_a_quote_goes_before_every_table() -> None:
    """Veo with sound is 0.40 USD/s; the table of February says 0.03."""
    found = prices(Quote(amount=Decimal("3.20"), asked_at=AT)).of(job(duration=8))
    assert (found.micro, found.source) == (3_200_000, "provider quote of 2026-11-25")
    assert (found.margin, found.estimated, found.to_reserve) == (0, False, 3_200_000)
    other = prices(Quote(amount=Decimal("3.20"), asked_at=AT)).of(job(duration=6))
    assert (other.micro, other.source) == (180_000, "built-in table of 2026-02-28")


@pytest.mark.parametrize(
    ("factor", "reserved"),
    [(None, 1_220_000), ("1", 976_000), ("1.0000005", 976_001), ("2", 1_952_000)],
)
def test_an_estimated_quote_is_reserved_with_a_margin(factor: str | None, reserved: int) -> None:
    """Booked at the quote, marked, and reserved x 1.25 unless told otherwise, rounded up."""
    options = {} if factor is None else {"estimate_factor": Decimal(factor)}
    quote = Quote(amount=Decimal("0.976"), asked_at=AT, estimated=True)
    found = prices(quote, **options).of(job(duration=8))
    assert (found.micro, found.to_reserve, found.estimated) == (976_000, reserved, True)


@pytest.mark.parametrize("factor", [Decimal("0.99"), 1.25, Decimal("NaN"), Decimal(101), 2])
def test_a_factor_is_a_decimal_of_at_least_one(factor: Any) -> None:
    with pytest.raises(UsageError, match="estimate_factor: "):
        prices(None, estimate_factor=factor)
