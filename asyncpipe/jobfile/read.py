"""From a path to what the file holds: find it, decode it, choose the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.json_source import read_json, read_jsonl
from asyncpipe.jobfile.source import Unreadable
from asyncpipe.jobfile.yaml_source import read_yaml

FORMATS: dict[str, Callable[[str], Any]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
}


def read_source(path: Path) -> Any:
    """Return what the job file at ``path`` holds; None for an empty one.

    Raises UsageError for a path that cannot be read, Unreadable for contents that cannot.
    """
    read = FORMATS.get(path.suffix.lower())
    content = _content(path)
    if read is None:
        known = ", ".join(FORMATS)
        raise UsageError(f"{path}: the ending tells a job file's format; give it one of {known}")
    return read(_text(content))


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a job file: name the file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise UsageError(
            f"there is no job file {path}: check the path, or write one with `asyncpipe init`"
        ) from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise UsageError(f"the job file {path} cannot be read: {reason}") from exc


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise Unreadable(f"not UTF-8: {_encoding_hint(content)}save it as UTF-8", line) from exc


def _encoding_hint(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "this is UTF-16; "
    try:
        content.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return "it may be GB18030 (GBK), as Chinese editors on Windows write; "
