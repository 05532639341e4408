"""From a path to what the file holds: find it, decode it, choose the format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.encoding import check_ordinary
from asyncpipe.jobfile.json_source import read_json
from asyncpipe.jobfile.source import Unreadable
from asyncpipe.jobfile.yaml_source import read_yaml

FORMATS: dict[str, Callable[[str], Any]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
}
"""Formats that are read whole; tables and JSON Lines are streamed."""

JOB_FILE_ENDINGS = (*FORMATS, ".jsonl", ".ndjson", ".csv", ".tsv")
"""Endings of job files."""


def read_source(path: Path) -> tuple[Any, str]:
    """Return what the job file at ``path`` holds, None for an empty one, and its sha256.

    Raises UsageError for a path that cannot be read, Unreadable for contents that cannot.
    """
    read = FORMATS.get(path.suffix.lower())
    content = _content(path)
    if read is None:
        known = ", ".join(JOB_FILE_ENDINGS)
        raise UsageError(f"{path}: the ending tells a job file's format; give it one of {known}")
    return read(_text(content)), hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    with file_of(path) as file:
        return file.read()


@contextmanager
def file_of(path: Path) -> Iterator[BinaryIO]:
    """Open a job file; raises UsageError for a path that cannot be read."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a job file: name the file in it")
    check_ordinary(path)
    try:
        with path.open("rb") as file:
            yield file
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
