"""A user's price file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asyncpipe.errors import JobFileError, UsageError
from asyncpipe.jobfile.encoding import check_ordinary
from asyncpipe.jobfile.from_json import read_json
from asyncpipe.jobfile.from_yaml import read_yaml
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Unreadable
from asyncpipe.pricing import PriceBook

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
    from asyncpipe.jobfile.models import PriceFileIn, fitting

    path = Path(path)
    problems = Problems(found=[], file=str(path))
    top, said = _read(path, problems), dict[str, Any]()
    if isinstance(top, Mapping) and "prices" in top:
        said = fitting(top, PriceFileIn, problems)
    else:
        problems.report(f"there is no prices: in it; {_EXAMPLE}")
    problems.end()
    source = f"price file {path.name}"
    return PriceBook(rates=said["prices"], source=source, as_of=said.get("as_of"))


def _read(path: Path, problems: Problems) -> Any:
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
        problems.report(str(exc), line=exc.line)
        raise JobFileError(problems.found) from exc
