"""Prices as files have them: a job file's ``prices:``, and price files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from asyncpipe._text import shown
from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile.checks import Check, Wrong, mapping, says, text, usd
from asyncpipe.jobfile.encoding import check_ordinary
from asyncpipe.jobfile.fields import resolution
from asyncpipe.jobfile.from_json import read_json
from asyncpipe.jobfile.from_yaml import read_yaml
from asyncpipe.jobfile.problems import Place
from asyncpipe.jobfile.source import Listing, Unclear, Unreadable, line_of
from asyncpipe.pricing import CONDITIONS, MOST_USD, UNITS, PriceBook, Rate, Tier, plain_size

_FORMATS = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json}

_EXAMPLE = """a price file looks like this:
as_of: "2026-11-25"
prices:
  google/veo3.1/text-to-video:
    per_second: 0.20
    tiers:
      - {audio: true, per_second: 0.40}"""


def load_price_file(path: str | Path) -> PriceBook:
    """Read a user's price file: YAML or JSON with ``prices:`` and, if told, ``as_of:``.

    Raises JobFileError with every problem in it, UsageError for a path that cannot be read.
    """
    path = Path(path)
    place = Place(found=[], file=str(path))
    top = _read(path, place)
    rates: dict[str, Rate] = {}
    as_of: date | None = None
    if not isinstance(top, Mapping) or "prices" not in top:
        place.report(f"there is no prices: in it; {_EXAMPLE}")
    else:
        checked = place.check(top, {"as_of": _day, "prices": mapping})
        as_of = checked.get("as_of")
        if "prices" in checked:
            rates = read_prices(checked["prices"], place.below(top, "prices"))
    if place.found:
        raise JobFileError(sorted(place.found, key=lambda problem: problem.line or 0))
    return PriceBook(rates=rates, source=f"price file {path.name}", as_of=as_of)


def _read(path: Path, place: Place) -> Any:
    read = _FORMATS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(_FORMATS)
        raise UsageError(f"{path}: the ending tells a price file's format; give it one of {known}")
    check_ordinary(path)
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no price file {path}: check the path") from None
    except UnicodeDecodeError as exc:
        raise UsageError(f"the price file {path} is not UTF-8: save it as UTF-8") from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise UsageError(f"the price file {path} cannot be read: {reason}") from exc
    try:
        return read(content)
    except Unreadable as exc:
        place.report(str(exc), line=exc.line)
        raise JobFileError(place.found) from exc


def _day(value: Any) -> date:
    try:
        return date.fromisoformat(text(value).strip())
    except ValueError:
        raise Wrong(f'{shown(value)} is not a date: write it like "2026-11-25"') from None


def read_prices(value: Mapping[str, Any], place: Place) -> dict[str, Rate]:
    """Check rates by model id; ``place`` is that of the mapping."""
    rates = {}
    for model, said in value.items():
        here = place.below(value, model)
        if not isinstance(said, Mapping):
            why = said.why if isinstance(said, Unclear) else _no_rate(said)
            here.report(f"{_name(here)}: {why}")
        elif (rate := _rate(said, here)) is not None:
            rates[model] = rate
    return rates


def _name(place: Place) -> str:
    return place.path.removesuffix(".")


def _rate(said: Mapping[str, Any], place: Place) -> Rate | None:
    """The rate a mapping says; None, and a report, where it is wrong."""
    before = len(place.found)
    checked = place.check(said, {**dict.fromkeys(UNITS, usd), "tiers": _tiers})
    tiers = [
        tier
        for n, each in enumerate(checked.pop("tiers", ()))
        if (tier := _tier(each, n, said, place)) is not None
    ]
    units = len(said) - ("tiers" in said)
    if units != 1 and (units or "tiers" not in said):
        place.report(f"{_name(place)}: {_no_rate(said)}")
    if len(place.found) > before:
        return None
    return Rate(**checked, tiers=tuple(tiers))


def _tiers(value: Any) -> Any:
    if isinstance(value, Listing | list | tuple) and value:
        return value
    raise Wrong(
        f"is {shown(value)}: write a list of tiers, each like {{audio: true, per_second: 0.4}}"
    )


def _tier(value: Any, n: int, said: Mapping[str, Any], place: Place) -> Tier | None:
    tiers = said["tiers"]
    line = tiers.lines[n] if isinstance(tiers, Listing) and tiers.lines else None
    path = f"{place.path}tiers[{n + 1}]."
    here = replace(place, path=path, line=line or line_of(said, "tiers", place.line))
    if not isinstance(value, Mapping):
        here.report(f"{_name(here)}: {shown(value)} is no tier; {_TIER_REMEDY}")
        return None
    before = len(here.found)
    checked = here.check(value, {**TIER_FIELDS, **dict.fromkeys(UNITS, usd)})
    rates = [unit for unit in UNITS if unit in value]
    if len(rates) != 1 or not {*CONDITIONS} & {*value}:
        here.report(f"{_name(here)}: {_TIER_REMEDY}")
    if len(here.found) > before:
        return None
    rate = Rate(**{unit: checked.pop(unit) for unit in rates})
    return Tier(rate=rate, **checked)


@says({"type": "boolean"})
def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(f"{shown(value)} is neither true nor false")


@says({"type": "string", "pattern": r"\S"})
def _size(value: Any) -> str:
    found = plain_size(text(value))
    if found is None:
        raise Wrong(f"{shown(value)} is no size: write width x height, like 1024x1024")
    return found


TIER_FIELDS: dict[str, Check] = {"resolution": resolution, "audio": _switch, "size": _size}

_TIER_REMEDY = (
    f"a tier is at least one of {', '.join(CONDITIONS)} and exactly one of {', '.join(UNITS)}, "
    "e.g. {audio: true, per_second: 0.4}"
)


def _no_rate(said: Any) -> str:
    number = isinstance(said, int | float) and not isinstance(said, bool)
    amount = said if number and abs(said) < MOST_USD else 0.04
    wrong = f"has {len(said)} keys" if isinstance(said, Mapping) else f"{shown(said)} is no rate"
    return f"{wrong}; give exactly one of {', '.join(UNITS)}, e.g. {{per_image: {amount}}}"
