"""Where the files are in a prediction's ``output``, which has whatever shape its model gives it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from asyncpipe.providers.texts import storable

RAW_LENGTH = 2000
"""Characters that are kept of an output that is no file."""

MOST = 1000
"""Files of one prediction that are taken."""

_DEPTH = 8

_URL = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)


def urls_of(output: Any) -> tuple[str, ...]:
    """Every file in an output, each once, in its order: http, https and data URLs.

    A text is one only where all of it is a URL: models of words answer pieces of text, and what
    they write about is nothing to fetch.
    """
    return tuple(islice(dict.fromkeys(_walk(output, _DEPTH)), MOST))


def raw_of(output: Any) -> str:
    """An output as text, for people; "" for none. Pieces of text are joined."""
    if output is None:
        return ""
    if isinstance(output, str):
        return storable(output)[:RAW_LENGTH]
    if isinstance(output, list) and output and all(isinstance(each, str) for each in output):
        return storable("".join(output))[:RAW_LENGTH]
    return storable(json.dumps(output, ensure_ascii=False))[:RAW_LENGTH]


def _walk(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        text = value.strip()
        if text[:5].lower() == "data:" and "," in text:
            head, _, body = text.partition(",")
            yield storable(f"{''.join(head.split()).lower()},{body}")
        elif _URL.fullmatch(text):
            yield text
    elif depth and isinstance(value, list | dict):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _walk(member, depth - 1)
