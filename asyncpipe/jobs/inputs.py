"""Which fields of a request hold media, and which of those values are files of this machine: pure.

The one table of media field names: pricing leaves these fields out, job files resolve them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobs.places import is_bucket_url

DIRECT_FIELDS = (
    "image",
    "images",
    "image_url",
    "image_urls",
    "reference_images",
    "end_image",
    "last_image",
    "video",
    "audio",
)
"""The commonest ones: a job file may have them on the job itself."""

_MEDIA = re.compile(
    r"(?:(?:first|last|start|end|tail|input|init|source|reference|ref|control|style|subject|face"
    r"|character|driving|first_frame|last_frame)_)?"
    r"(?:image|video|audio|mask|frame)s?(?:_(?:url|list)s?)?",
    re.IGNORECASE,
)

DEEPEST = 64
"""How deep values may nest, as in a job file."""

_FLAT = frozenset({int, float, bool, type(None)})

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:", re.ASCII)  # two letters: C: is a drive

_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFile:
    """A file a job takes in, as it was when it was checked.

    ``path`` is absolute, or the URL of an object in a bucket.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str


@lru_cache(maxsize=4096)
def is_media_field(name: str) -> bool:
    """Whether a field's text is a medium: a URL, a data URI, or a file of this machine.

    Seen in providers' documents and clients, or spelled like those. They count
    wherever they stand in ``params``, also inside lists and mappings (``references``).
    """
    return _MEDIA.fullmatch(name) is not None


def is_local(text: str) -> bool:
    """Whether a medium is a file here: no URL or other scheme, no data URI, no bare base64.

    An object in a bucket counts as one: the provider has no key to it.
    """
    if text.lower().startswith("file:") or is_bucket_url(text):
        return True  # no server can fetch it; of the first the check says how to write it
    return bool(text) and not _SCHEME.match(text) and not _BASE64.fullmatch(text)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_HOST = re.compile(r"(?:https?://[^/?#\s]|data:[^,]*,|asset://.)", re.IGNORECASE)
"""How what a provider can take begins: a URL with its host, data, or its own name for media."""


@lru_cache(maxsize=4096)
def wrong_with(text: str) -> str | None:
    """Why a medium is neither a URL nor a path, and what to do; None where it may be one."""
    if (text[:5].lower() == "data:" and _HOST.match(text)) or _BASE64.fullmatch(text):
        return None
    if _CONTROL.search(text.strip()):
        return (
            f"{text[:60]!r} has a line break or another control sign in it, as \\n and \\t "
            "become in double quotes: write a path in single quotes, or with /"
        )
    if text.startswith("//"):
        return f"{text[:60]!r} names no scheme: write https:{text[:60]}"
    found = _SCHEME.match(text)
    if found is None or is_bucket_url(text) or found[0].lower() == "file:" or _HOST.match(text):
        return None
    return (
        f"{text[:60]!r} is no address that the provider can fetch: write a URL with https:// and "
        f"its host, or ./{text[:40]} for a file of that name"
    )


def may_take_media(params: Mapping[str, Any]) -> bool:
    """Whether ``local_media`` may find anything: a quick no for most of a million jobs."""
    for name, value in params.items():
        kind = type(value)
        if kind is str:
            if is_media_field(name):
                return True
        elif kind not in _FLAT:
            return True
    return False


def local_media(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, text) of every medium of this machine; ``field`` as in ``refs[0].image``.

    Raises UsageError for what is nested deeper than any request.
    """
    return ((field, text) for field, text in media(params) if is_local(text))


def media(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (field, text) of every medium, wherever it is.

    Raises UsageError for what is nested deeper than any request.
    """
    for name, value in params.items():
        if is_media_field(str(name)) or isinstance(value, Mapping | list | tuple):
            yield from _within(str(name), value, medium=is_media_field(str(name)))


def _within(field: str, value: Any, *, medium: bool, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > DEEPEST:
        raise UsageError(f"{field[:60]}…: nested more than {DEEPEST} deep")
    if isinstance(value, str):
        if medium and value:
            yield field, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            held = is_media_field(str(name))
            yield from _within(f"{field}.{name}", inner, medium=held, depth=depth + 1)
    elif isinstance(value, list | tuple):
        for n, inner in enumerate(value):
            yield from _within(f"{field}[{n}]", inner, medium=medium, depth=depth + 1)


def with_media(params: Mapping[str, Any], by: Mapping[str, str]) -> dict[str, Any]:
    """Copy ``params`` with every medium that is a key of ``by`` replaced by its value."""
    return {
        name: _replaced(value, by, medium=is_media_field(str(name)))
        for name, value in params.items()
    }


def _replaced(value: Any, by: Mapping[str, str], *, medium: bool) -> Any:
    if isinstance(value, str):
        return by.get(value, value) if medium else value
    if isinstance(value, Mapping):
        return with_media(value, by)
    if isinstance(value, list | tuple):
        return [_replaced(inner, by, medium=medium) for inner in value]
    return value
