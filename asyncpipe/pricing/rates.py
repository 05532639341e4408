"""What one model costs: one amount per unit, or tiers of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from asyncpipe.errors import UsageError

UNITS = ("per_image", "per_second", "per_job")

CONDITIONS = ("resolution", "audio", "size")
"""What a tier can ask of a job."""

AUDIO_FIELDS = ("generate_audio", "audio", "enable_audio", "with_audio", "sound", "with_sound")
"""Fields that switch sound on or off, by model."""

_SWITCH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}

_SIZE = re.compile(r"\s*(\d{1,6})\s*[x*×]\s*(\d{1,6})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What one model costs, in USD: per image, per second of video or audio, or per job.

    Exactly one is set, as Decimal and not negative. With ``tiers`` it is what holds where none of
    them fits, and may be left out. ``least_s``: at least so many seconds are paid for. Raises
    UsageError otherwise.
    """

    per_image: Decimal | None = None
    per_second: Decimal | None = None
    per_job: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    least_s: Decimal | None = None

    def __post_init__(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1 and (given or not self.tiers):
            raise UsageError(
                f"a rate is exactly one of {', '.join(UNITS)}; this one has {given or 'none'}"
            )
        for unit in given:
            _check_amount(unit, getattr(self, unit))

    @property
    def unit(self) -> str | None:
        """Which of the three is set; None: there are only tiers."""
        return next((unit for unit in UNITS if getattr(self, unit) is not None), None)

    @property
    def amount(self) -> Decimal:
        """The USD for one unit; 0 where there are only tiers."""
        amount: Decimal = getattr(self, self.unit) if self.unit else Decimal(0)
        return amount


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """A rate for jobs of one resolution or size, with or without sound; None: any.

    ``resolution`` is compared without regard to case; ``size`` is width x height, as ``1024x1024``.
    Raises UsageError for a tier that asks nothing, or whose rate has tiers itself.
    """

    rate: Rate
    resolution: str | None = None
    audio: bool | None = None
    size: str | None = None

    def __post_init__(self) -> None:
        if self.resolution is None and self.audio is None and self.size is None:
            raise UsageError(f"a tier says at least one of {', '.join(CONDITIONS)}")
        if self.rate.tiers:
            raise UsageError("a tier has one rate and no tiers of its own")
        if self.size is not None and plain_size(self.size) is None:
            raise UsageError(f"size: {self.size!r} must be width x height, like 1024x1024")

    def open_conditions(self, features: Features) -> tuple[str, ...] | None:
        """What of this tier a job leaves open; None when it does not fit the job."""
        unsaid = []
        for name in CONDITIONS:
            wanted, said = getattr(self, name), getattr(features, name)
            if wanted is None:
                continue
            if name == "size":
                wanted = plain_size(wanted)
            if said is None:
                unsaid.append(f"{name} {str(wanted).lower()}")
            elif said != (wanted.lower() if isinstance(wanted, str) else wanted):
                return None
        return tuple(unsaid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What a job's fields say of what tiers ask; None: nothing."""

    resolution: str | None = None
    audio: bool | None = None
    size: str | None = None

    def __str__(self) -> str:
        said = [(name, getattr(self, name)) for name in CONDITIONS]
        return ", ".join(
            f"{name} {str(value).lower()}" for name, value in said if value is not None
        )


def features_of(params: Mapping[str, Any]) -> Features:
    """Read what tiers ask from a request's fields."""
    resolution = params.get("resolution")
    return Features(
        resolution=resolution.strip().lower() if isinstance(resolution, str) else None,
        audio=next(
            (on for name in AUDIO_FIELDS if (on := _on(params.get(name))) is not None), None
        ),
        size=_size(params),
    )


def plain_size(text: Any) -> str | None:
    """``1024*768``, ``1024x768`` and the like as ``1024x768``; None for anything else."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    return f"{int(found[1])}x{int(found[2])}" if found else None


def _size(params: Mapping[str, Any]) -> str | None:
    width, height = params.get("width"), params.get("height")
    return plain_size(params.get("size")) or plain_size(f"{width}x{height}")


def _on(value: Any) -> bool | None:
    if isinstance(value, str):
        return _SWITCH.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _check_amount(unit: str, amount: Any) -> None:
    if not isinstance(amount, Decimal):
        # A float is refused, not converted: 0.1 + 0.2 is how a budget leaks.
        raise UsageError(f'{unit}: {amount!r} must be a Decimal, e.g. Decimal("0.04")')
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"{unit}: {amount} must be a finite amount of USD, not negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class PriceBook:
    """Rates by model id, in USD; ``source`` says where they come from, ``as_of`` when."""

    rates: Mapping[str, Rate]
    source: str
    as_of: date | None = None

    @property
    def title(self) -> str:
        """The source, with its date where it has one."""
        return f"{self.source} of {self.as_of}" if self.as_of else self.source


@runtime_checkable
class HasPriceBook(Protocol):
    """What a provider may have besides: prices of its own that are known without asking."""

    @property
    def price_book(self) -> PriceBook | None:
        """Its prices where it is; None where others may hold."""


def price_book_of(provider: object) -> PriceBook | None:
    """What a provider knows of its own prices."""
    return provider.price_book if isinstance(provider, HasPriceBook) else None


def of_others(books: Iterable[PriceBook], own: PriceBook | None, name: str) -> list[PriceBook]:
    """The prices of models that another provider has: ``name:model`` of each; ``own`` are its own.

    The user's ``books`` hold for them by their plain ids, too.
    """
    known = [*books, *([own] if own else [])]
    return [
        replace(book, rates={f"{name}:{model}": rate for model, rate in book.rates.items()})
        for book in known
    ]


def books_of(
    prices: Mapping[str, Rate] | None,
    price_file: PriceBook | None = None,
    own: PriceBook | None = None,
) -> tuple[PriceBook, ...]:
    """The price books of a run, in order: the job file's rates, the user's file, the provider's."""
    named = [PriceBook(rates=dict(prices), source="job file")] if prices else []
    return (*named, *(book for book in (price_file, own) if book))
