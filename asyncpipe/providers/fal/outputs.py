"""Where media are in the output of fal's models, each of which has a form of its own: pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from asyncpipe.providers.texts import Fields, storable

_PLACES = (
    *("images", "image", "videos", "video", "audios", "audio", "audio_file", "audio_url"),
    *("model_mesh", "model_glb", "files", "file"),
)
"""Fields that hold what was asked for, those that are named first before the others."""

_MARKS = ("content_type", "file_name", "file_size")
"""What tells a file from whatever else has a ``url``."""

_DEPTH = 8

_MOST_EXTRAS = 20

_MOST_FLAGS = 100


def outputs(document: Fields) -> tuple[str, ...]:
    """The URLs of a result, each once, in its order.

    From the first place that names any; else of every file that there is, or of its films or sounds
    where there are some: a picture beside those is a cover, or a mask. Where there is none, its
    ``text``.
    """
    for name in _PLACES:
        if found := tuple(dict.fromkeys(_named(document.get(name)))):
            return found
    kinds = dict(_files(document))
    for kind in ("video", "audio", ""):
        if found := tuple(url for url, told in kinds.items() if told.startswith(kind)):
            return found
    text = document.get("text")
    if not isinstance(text, str) or not text:
        return ()
    return ("data:text/plain;charset=utf-8," + quote(storable(text)),)


def extras(document: Fields, found: tuple[str, ...]) -> tuple[str, ...]:
    """The URLs of files beside ``found``: a mask, a thumbnail, the model's textures."""
    return tuple(url for url in dict(_files(document)) if url not in found)[:_MOST_EXTRAS]


def unsafe(document: Fields) -> tuple[bool, ...]:
    """Which outputs are flagged as not safe; () if none is. Such a picture is black, and paid."""
    told = document.get("has_nsfw_concepts")
    flags = told[:_MOST_FLAGS] if isinstance(told, list) else [told]
    marks = tuple(flag is True for flag in flags)
    return marks if any(marks) else ()


def _named(value: Any) -> Iterator[str]:
    """URLs at a place that is known: files, or the URLs themselves."""
    for member in value if isinstance(value, list) else [value]:
        yield from _url(member.get("url") if isinstance(member, dict) else member)


def _files(value: Any, depth: int = _DEPTH) -> Iterator[tuple[str, str]]:
    """The URL and the type of every file there is."""
    if not depth:
        return
    if isinstance(value, list):
        for member in value:
            yield from _files(member, depth - 1)
    elif isinstance(value, dict):
        if any(mark in value for mark in _MARKS):
            kind = value.get("content_type")
            for url in _url(value.get("url")):
                yield url, kind.lower() if isinstance(kind, str) else ""
        for member in value.values():
            if isinstance(member, list | dict):
                yield from _files(member, depth - 1)


def _url(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value[:8].lower().startswith(("http://", "https://", "data:")):
        yield storable(value)
