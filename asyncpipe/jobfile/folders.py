"""``{date}``, ``{week}`` and ``{time}`` in an output folder's name: another folder each time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, tzinfo
from itertools import takewhile
from pathlib import Path, PurePath
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncpipe._text import brief, shown
from asyncpipe.errors import UsageError
from asyncpipe.jobs import BucketUrl, OutputPlace, is_bucket_url


def _week(at: datetime) -> str:
    year, week, _ = at.isocalendar()  # the first days of January may be of the year before
    return f"{year:04d}-W{week:02d}"


def _time(at: datetime) -> str:
    # With its offset: tells apart the hour that autumn repeats, and folders of before another TZ.
    offset = at.strftime("%z")[:5]
    return at.strftime("%Y-%m-%dT%H-%M-%S") + ("Z" if offset == "+0000" else offset)


def _of_week(text: str) -> datetime:
    year, _, week = text.partition("-W")
    return _midnight(date.fromisocalendar(int(year), int(week), 1))


def _of_time(text: str) -> datetime:
    return datetime.strptime(text.replace("Z", "+0000"), "%Y-%m-%dT%H-%M-%S%z")


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """How a moment is written, what that looks like, and how it is read."""

    write: Callable[[datetime], str]
    pattern: str
    read: Callable[[str], datetime]


# Finest last: of several in one name that one says when the folder is of.
_STAMPS: Mapping[str, _Stamp] = {
    "week": _Stamp(_week, r"\d{4}-W\d{2}", _of_week),
    "date": _Stamp(
        lambda at: at.date().isoformat(),
        r"\d{4}-\d{2}-\d{2}",
        lambda text: _midnight(date.fromisoformat(text)),
    ),
    "time": _Stamp(_time, r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:Z|[+-]\d{4})", _of_time),
}

KNOWN = "{date}, {week} and {time}"

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

_WIDE = re.compile(rf"[{{｛]\s*({'|'.join(_STAMPS)})\s*[}}｝]")

_PLACEHOLDER = re.compile(rf"{{\s*({'|'.join(_STAMPS)})\s*}}")

_ANOTHER = r"(?:_([2-9]|[1-9]\d+))?"
"""What the name of a second folder of one moment, and of a third, ends with."""

Moment = tuple[datetime, int]
"""When a folder is of, and which one of that moment it is; the newest folder has the largest."""


@dataclass(frozen=True, slots=True)
class FolderTemplate:
    """An output folder's name with placeholders in it: ``levels`` are its folders from the top.

    ``{date}`` is the day, ``{week}`` the year and week of ISO 8601, ``{time}`` day and time to the
    second with the offset from UTC. In a level every other text is a placeholder's name. The
    folders may be in a ``bucket``.
    """

    text: str
    levels: tuple[tuple[str, ...], ...]
    bucket: BucketUrl | None = None

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, text: str) -> FolderTemplate:
        """Read a name; raises UsageError for a brace that is none of a known placeholder.

        Also for the URL of a bucket with one outside its prefix, or that is none.
        """
        if (wide := _WIDE.search(text)) and {*wide[0]} & {*"｛｝"}:
            why = f"has full-width braces: write {{{wide[1]}}}"
            raise UsageError(f"{wide[0]} in {shown(text)} {why}")
        marked, at = "", 0
        for part in _PART.finditer(text):
            marked += text[at : part.start()]
            marked += part[0][0] if part[0] in ("{{", "}}") else _MARK + _name(part, text) + _MARK
            at = part.end()
        template = cls(text, *_levels(marked + text[at:]))
        if template.bucket is not None and "time" in template.names:
            raise UsageError(
                f"{shown(text)}: {{time}} is another place for each worker of a bucket's ledger: "
                "write {date} or {week}, on which they agree"
            )
        return template

    @property
    def names(self) -> set[str]:
        """The placeholders in it."""
        return {name for level in self.levels for name in level[1::2]}

    @property
    def varies(self) -> bool:
        """Whether there is a placeholder in it: without one it is a folder's plain name."""
        return bool(self.names)

    @property
    def root(self) -> Path:
        """The folder of this machine that all folders of the template are in."""
        levels = takewhile(lambda level: len(level) == 1, self.levels)
        return Path(*("".join(level) for level in levels))

    def folder(self, at: datetime, another: int = 1) -> OutputPlace:
        """The folder of a moment, in the moment's own zone; the ``another``-th of its name."""
        parts = [
            "".join(_STAMPS[text].write(at) if n % 2 else text for n, text in enumerate(level))
            for level in self.levels
        ]
        if another > 1:
            parts[-1] += f"_{another}"
        if self.bucket is None:
            return Path(*parts)
        return replace(self.bucket, prefix="/".join(parts))

    def moment(self, folder: OutputPlace) -> Moment | None:
        """When a folder is of; None for one that has no name of this template."""
        said, another = dict[str, str](), "1"
        parts = folder.parts if isinstance(folder, Path) else folder.prefix.split("/")
        if not self.varies or len(parts) != len(self.levels):
            return None
        for n, (level, name) in enumerate(zip(self.levels, parts, strict=True), start=1):
            match = re.fullmatch(_pattern(level, last=n == len(self.levels)), name, re.ASCII)
            if match is None:
                return None
            said |= zip(level[1::2], match.groups(), strict=False)
            another = (match[match.re.groups] or "1") if n == len(self.levels) else another
        finest = [name for name in _STAMPS if name in said][-1]
        try:
            at = _STAMPS[finest].read(said[finest])
        except ValueError:  # there is no 31st of June, nor a 53rd week of most years
            return None
        return (at, int(another)) if self.folder(at, int(another)) == folder else None

    def found(self) -> list[Path]:
        """The folders of this machine that have a name of the template."""
        if self.bucket is not None:
            return []
        paths = [Path()]
        for n, level in enumerate(self.levels, start=1):
            if len(level) == 1 and n < len(self.levels):
                paths = [path / level[0] for path in paths]
            else:
                pattern = re.compile(_pattern(level, last=n == len(self.levels)), re.ASCII)
                paths = [each for path in paths for each in _inside(path, pattern)]
        return [path for path in paths if self.moment(path)]


_MARK = "\0"


def _levels(marked: str) -> tuple[tuple[tuple[str, ...], ...], BucketUrl | None]:
    if not is_bucket_url(marked):
        return tuple(tuple(part.split(_MARK)) for part in PurePath(marked).parts), None
    # Checked as a bucket's, with letters for the placeholders.
    prefix = BucketUrl.parse(marked.replace(_MARK, "")).prefix
    bucket, _, inner = marked.partition("://")[2].partition("/")
    place = BucketUrl.parse(f"{marked.partition('://')[0]}://{bucket}")
    parts = inner.removesuffix("/").split("/") if prefix else []
    return tuple(tuple(part.split(_MARK)) for part in parts), place


def _name(part: re.Match[str], text: str) -> str:
    """The placeholder that a part of ``text`` is; raises UsageError for anything else."""
    name = "" if part[1] is None else part[1].strip()
    if name in _STAMPS:
        return name
    why = "is no placeholder" if part[1] is not None else "is a lone brace"
    raise UsageError(
        f"{brief(part[0])} in {shown(text)} {why}: {KNOWN} are known; to mean a brace write it "
        "twice"
    )


def _pattern(level: Sequence[str], *, last: bool) -> str:
    texts = (
        f"({_STAMPS[text].pattern})" if n % 2 else re.escape(text) for n, text in enumerate(level)
    )
    return "".join(texts) + (_ANOTHER if last else "")


def _inside(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        return [each for each in folder.iterdir() if pattern.fullmatch(each.name)]
    except OSError:  # there is none yet, or it is no folder
        return []


def has_placeholder(name: str) -> bool:
    """Whether a folder's name has a placeholder in it that was not filled."""
    return _PLACEHOLDER.search(name) is not None


def zone_of(name: str) -> tzinfo:
    """The zone that TZ names; "" is UTC. Raises UsageError for a name that nobody knows."""
    name = name.removeprefix(":")
    if name in ("", "UTC"):
        return UTC
    try:
        if Path(name).is_absolute():
            with Path(name).open("rb") as file:
                return ZoneInfo.from_file(file)
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError) as exc:
        raise UsageError(
            f"TZ={brief(name)} is no time zone that is known here: write one like Europe/Berlin "
            "(pip install tzdata brings those that a system lacks), or unset TZ for UTC"
        ) from exc
