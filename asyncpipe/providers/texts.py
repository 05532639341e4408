"""What any API answers, made fit for keeping and showing: JSON, words, ids; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

Fields = Mapping[str, Any]

MESSAGE_LENGTH = 300

_LONG_NUMBER = re.compile(rb"[0-9]{19}")

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")

_SECRETS = re.compile(r"(apikey-|r8_|Bearer\s+)[\w.~+/=-]+", re.IGNORECASE)

_INLINE = re.compile(r"(data:[\w/.+-]+(?:;[\w=-]+)*,)[\w%+/=-]{20,}", re.IGNORECASE)
"""Media inside a message, which say nothing to anybody."""

_MODERATION = re.compile(
    r"content[ _-]?(polic|filter|moderat)|moderation|moderated|copyright|sensitive|nsfw|filtered"
    r"|safety (system|filter|polic|check)|审核|敏感|违规|版权",
    re.IGNORECASE,
)


def read_json(body: bytes) -> Fields | None:
    """Return the JSON object in ``body``, or None when there is none.

    Stray bytes are replaced, not refused: an id must not be lost to a bad byte in a message.
    """
    # A long whole number would be a float to orjson.
    document = None if _has_long_number(body) else parse(body)
    if document is None:
        try:
            document = json.loads(body.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):  # RecursionError: deeper than the interpreter goes
            return None
    return document if isinstance(document, dict) else None


_LARGE = 64 * 1024

_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))


def _has_long_number(body: bytes) -> bool:
    if len(body) < _LARGE:
        return _LONG_NUMBER.search(body) is not None
    return b"0" * 19 in body.translate(_DIGITS)  # media of 20 MB: a tenth of the time


def parse(body: bytes) -> Any:
    """What orjson makes of a body; None where it finds no JSON."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def clean(text: str, length: int = MESSAGE_LENGTH) -> str:
    """Make one printable line of at most ``length`` characters; escapes, keys and media go."""
    if text.isalnum() and len(text) <= length:
        return text  # one word: nothing to take out of it
    text = _SECRETS.sub(r"\1…", _ESCAPES.sub("", text[: 8 * MESSAGE_LENGTH]))
    text = _INLINE.sub(r"\1…", text)
    line = " ".join("".join(map(_printable, text)).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _printable(char: str) -> str:
    # The joiners, which emoji and Persian are written with, count as formatting in Unicode.
    return char if char.isprintable() or char in "\u200c\u200d" else " "


def storable(text: str) -> str:
    """The text without what no database and no URL takes."""
    # Half a surrogate pair is legal JSON, but neither a database nor a URL takes it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def speaks_of_moderation(text: str) -> bool:
    """Whether an error's words mean that content moderation refused the input."""
    return _MODERATION.search(text) is not None


def page_text(body: bytes) -> str:
    """What a body that is not JSON says: the title of a page, or its first words."""
    text = body[:4096].decode("utf-8", "ignore")
    if title := re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE):
        return clean(title[1], 120)
    return clean(re.sub(r"<[^>]*>", " ", text), 120)
