"""What the provider itself says jobs will cost: one quote per distinct price key; pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import orjson

from asyncpipe.jobs import Job, JobType, canonical_json, is_media_field

_NOT_PRICED = frozenset({"prompt", "negative_prompt", "seed", "webhook_url"})

_SPOKEN = "text"

_FLAT = frozenset({str, int, float, bool, type(None)})

_ADDRESS = re.compile(r"(?:https?|data|file):", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Quote:
    """What the provider says one request will cost, in USD; ``asked_at`` is when, in UTC.

    ``estimated``: only the finished prediction tells the charge. ``list_amount`` is the price
    before the account's discount; None: not told. ``unquoted`` is why the provider quotes
    nothing: then it is reckoned by what is listed for the model. ``free``: 0 USD is meant, and no
    price unknown.
    """

    amount: Decimal
    asked_at: datetime
    estimated: bool = False
    list_amount: Decimal | None = None
    unquoted: str = ""
    free: bool = False

    @property
    def listed(self) -> bool:
        """Whether it is reckoned by a list, and no quote of this very request."""
        return bool(self.unquoted)


class QuoteBook:
    """The quotes there are, by price key: jobs of one key cost the same."""

    def __init__(self) -> None:
        self._quotes: dict[bytes, Quote] = {}

    def __len__(self) -> int:
        return len(self._quotes)

    def __contains__(self, key: bytes) -> bool:
        return key in self._quotes

    def by_key(self, key: bytes) -> Quote | None:
        """The quote for jobs of a price key, or None."""
        return self._quotes.get(key)

    def of(self, job: Job) -> Quote | None:
        """The quote for a job, or None."""
        return self.by_key(price_key(job)) if self._quotes else None

    def add(self, key: bytes, quote: Quote) -> None:
        """Keep a quote; a later one replaces it."""
        self._quotes[key] = quote

    def drop(self, key: bytes) -> None:
        """Forget the quote for jobs of a price key, if there is one."""
        self._quotes.pop(key, None)


def price_key(job: Job) -> bytes:
    """What a job's price depends on, hashed: model, type and fields.

    Left out are the prompts, the seed, and what media are given; how many of each are given
    stays in, since models charge for that, and so does the length of what is to become audio.
    Raises UsageError for fields JSON does not have.
    """
    try:
        return _price_key(job)
    except (TypeError, RecursionError):
        canonical_json(job.params)  # says what is wrong
        raise


def _price_key(job: Job) -> bytes:
    speaks = job.kind is JobType.AUDIO
    left_out = _NOT_PRICED | {_SPOKEN} if speaks else _NOT_PRICED
    length = _length(job.prompt, job.params.get(_SPOKEN)) if speaks else []
    priced = {n: _blank(n, value) for n, value in job.params.items() if n not in left_out}
    if speaks or not _FLAT.issuperset(map(type, priced.values())):
        return _hashed(job.kind, job.model, priced, length)
    return _hashed_flat(job.kind, job.model, *priced, *priced.values())


@lru_cache(maxsize=4096, typed=True)  # 1, 1.0 and True are equal, and not the same request
def _hashed_flat(kind: JobType, model: str, *priced: Any) -> bytes:
    """The hash of fields without depth, which a million jobs share: names, then values."""
    half = len(priced) // 2
    return _hashed(kind, model, dict(zip(priced[:half], priced[half:], strict=True)), [])


def _hashed(kind: JobType, model: str, priced: dict[str, Any], length: list[int]) -> bytes:
    text = orjson.dumps([kind.value, model, priced, length], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).digest()


def _length(*texts: Any) -> list[int]:
    """Characters and bytes: providers count either."""
    joined = "".join(text for text in texts if isinstance(text, str))
    return [len(joined), len(joined.encode("utf-8", "replace"))]


def _blank(name: str, value: Any) -> Any:
    """The value with every medium in it, or its address, made the same; ``audio: true`` is none."""
    if isinstance(value, str):
        return "medium" if is_media_field(name) or _ADDRESS.match(value) else value
    if isinstance(value, list | tuple):
        return [_blank(name, each) for each in value]
    if isinstance(value, dict):
        return {key: _blank(str(key), inner) for key, inner in value.items()}
    return value
