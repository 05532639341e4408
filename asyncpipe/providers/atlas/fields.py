"""Where the fields of Atlas Cloud's JSON answers may be, and how each is spelled: pure.

Every spelling stands in atlas-api.md §2, §3 and §6. ``layers`` are an answer's nested objects,
innermost first: ``data.data``, ``data``, the answer itself.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from asyncpipe.pricing import MOST_USD
from asyncpipe.providers.texts import clean, parse, speaks_of_moderation, storable

Fields = Mapping[str, Any]

MODERATED = 1039
"""The one ``error_code`` the documentation explains: the input was refused by moderation."""

_DEPTH = 4

_ID_LENGTH = 512

_IDS = ("id", "predictionId", "prediction_id")

_TEXTS = (
    *("error", "msg", "message", "error_message", "error_msg", "detail", "reason"),
    *("failure_reason", "fail_reason", "title"),
)

_OF_ERROR = ("message", "msg", "error", "error_message", "detail", "reason", "title", "code")
"""Where an error that is an object says what it is."""

_BESIDE = (
    *("error", "error_message", "error_msg", "failure_reason", "fail_reason"),
    *("warning", "warnings"),
)
"""What speaks of trouble, also beside a prediction that has not failed; a message need not."""

_CALM = frozenset({"ok", "success", "succeeded", "completed", "none", "null"})
"""What is said when nothing is wrong."""

_UNSAFE = (
    *("has_nsfw_contents", "has_nsfw_content", "has_nsfw_concepts"),
    *("nsfw_content_detected", "nsfw"),
)

_MOST_FLAGS = 100

_UPLOADED = ("download_url", "url", "file_url")

_ONE_URL = ("url", "uri", "download_url")

_MANY_URLS = (
    *("outputs", "output", "output_url", "video_url", "image_url", "audio_url", "model_url"),
    *("file_url", "images", "videos", "audios", "video", "image", "audio", "file", "b64_json"),
)

_LISTS = ("outputs", "output", "images", "videos", "audios")

_TEXT_LISTS = ("outputs", "output")

_SAID_TEXTS = ("stt_result", "lyrics_result")
"""Where a text is that is what was asked for, or goes with it."""

_SINGLES = ("output_url", "video_url", "image_url")

_AUDIO = "audio_url"
"""A song, or what speech recognition was given to hear: then the text beside it is the output."""

_FILES = ("files", "layers")
"""What is there beside the outputs; where there are none, these are."""

_COVERS = ("thumbnail", "thumbnails", "thumbnail_url", "cover", "cover_url")

_MOST_EXTRAS = 20

_LONGEST_PACKED = 1024 * 1024

RAW_LENGTH = 2000
"""Characters that are kept of outputs that cannot be read."""

PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,512}", re.ASCII)

_PLAIN_URL = re.compile(r"https?://[!-~]+", re.ASCII)

_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)

_AMOUNT_LENGTH = 40

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

_SHORTEST_BASE64 = 64


def layers_of(document: Fields) -> tuple[Fields, ...]:
    """Return the answer's nested ``data`` objects and itself, innermost first.

    A list of one is the one.
    """
    found = [document]
    while isinstance(inner := _only(found[-1].get("data")), dict):
        found.append(inner)
    return tuple(reversed(found))


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def number(value: Any) -> int | None:
    """Read a whole number of ordinary size, spelled as a number or as text; None otherwise."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if abs(value) < 10**9 else None


def identifier(layer: Fields, names: Iterable[str] = _IDS) -> str:
    """Return the first of ``names`` in ``layer`` that holds an id, as text; "" if none does."""
    for name in names:
        value = layer.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # JSON reading bounds its digits at 4,300, which str() takes
        if isinstance(value, str) and 0 < len(found := value.strip()) <= _ID_LENGTH:
            return storable(found)
    return ""


def prediction_id(layers: tuple[Fields, ...]) -> str:
    """Return the prediction's id; "" if there is none. A bare ``request_id`` is not one."""
    *inner, top = layers
    # data.id is the documented place, so the outer of two nested ones wins.
    return next((found for layer in [*reversed(inner), top] if (found := identifier(layer))), "")


def upload_url(layers: tuple[Fields, ...]) -> str:
    """Return where an uploaded file is; "" if the answer does not say."""
    told = (layer.get(name) for layer in layers for name in _UPLOADED)
    return next((url for text in told if isinstance(text, str) for url in _http(text)), "")


def _http(text: str) -> Iterator[str]:
    text = text.strip()
    if text[:8].lower().startswith(("http://", "https://")) and text.isprintable():
        yield storable(text)


def outputs(
    layers: tuple[Fields, ...], *, singles: bool = True, texts: bool = False
) -> tuple[str, ...]:
    """Return the output URLs, each once, from the innermost layer that has any.

    ``singles=False`` leaves out ``image_url`` and its like, which may echo the job's own input.
    With ``texts``, what stands in ``outputs`` and is no URL is an output as well: the text itself.
    """
    for layer in layers:
        # The first place that names something is all: what stands beside it may be an echo.
        for name in _LISTS:
            if found := tuple(dict.fromkeys(_urls(layer.get(name)))):
                return found
            if texts and name in _TEXT_LISTS and (found := tuple(_texts(layer.get(name)))):
                return found
        for read, name in _OTHERS if singles else ():
            if found := tuple(dict.fromkeys(read(layer.get(name)))):
                return found
    return ()


def extras(layers: tuple[Fields, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs of files beside ``outputs``: covers, layers, texts of what was sung."""
    found: dict[str, None] = {}
    for layer in layers:
        # Beside a text a sound may be the song itself: one file too many loses nothing.
        sound = [_AUDIO] if outputs[0].startswith("data:text/plain") else []
        for name in (*sound, *_COVERS, *_FILES):
            found |= dict.fromkeys(_urls(layer.get(name)))
        for name in _SAID_TEXTS:
            found |= dict.fromkeys(_said_text(layer.get(name)))
        members = layer.get("outputs")
        for member in members if isinstance(members, list) else ():
            if isinstance(member, dict):
                found |= dict.fromkeys(url for name in _COVERS for url in _urls(member.get(name)))
    return tuple(url for url in found if url not in outputs)[:_MOST_EXTRAS]


def unread(layers: Iterable[Fields], *, texts: bool = False) -> str:
    """Return, as text, what stands where outputs are and cannot be read as any; "" for nothing."""
    for layer in layers:
        for name in _LISTS:
            value = layer.get(name)
            left = [m for m in (value if isinstance(value, list) else [value]) if _is_unread(m)]
            if left and not (texts and name in _TEXT_LISTS):
                one = left[0] if len(left) == 1 and isinstance(left[0], str) else None
                return storable(one or json.dumps(left, ensure_ascii=False))[:RAW_LENGTH]
    return ""


def outputs_of_failure(layers: Iterable[Fields]) -> str:
    """Return, as text, what a failed prediction has all the same where outputs are; "" if nothing.

    Such outputs are not paid for, and may be a part.
    """
    for layer in layers:
        for name in _LISTS:
            if next(_urls(layer.get(name)), None) is not None:
                return storable(json.dumps(layer[name], ensure_ascii=False))[:RAW_LENGTH]
    return ""


def _is_unread(member: Any) -> bool:
    says = bool(member) and isinstance(member, str | dict | list)
    return says and next(_urls(member), None) is None


def _said_text(value: Any) -> Iterator[str]:
    """The text of what was said or sung; an object that holds more than it as it came."""
    if isinstance(value, dict) and value:
        yield from _text(value.get("text"))
        if value.keys() > {"text"} or "text" not in value:
            yield from _text(json.dumps(value, ensure_ascii=False))
    elif isinstance(value, list) and value:
        yield from _text(json.dumps(value, ensure_ascii=False))
    else:
        yield from _text(value)


def _main_text(value: Any) -> Iterator[str]:
    yield from itertools.islice(_said_text(value), 1)


def _texts(value: Any) -> Iterator[str]:
    for member in value if isinstance(value, list) else [value]:
        yield from _text(member)


def _urls(value: Any, depth: int = _DEPTH) -> Iterator[str]:
    if isinstance(value, str):
        packed = _packed(value) if depth else None
        yield from _url(value.strip()) if packed is None else _urls(packed, depth - 1)
    elif isinstance(value, list) and depth:
        for member in value:
            yield from _urls(member, depth - 1)
    elif isinstance(value, dict) and depth:
        one = next((found for name in _ONE_URL for found in _urls(value.get(name), 0)), None)
        if one is not None:
            yield one
            return
        found = [url for name in _MANY_URLS for url in _urls(value.get(name), depth - 1)]
        yield from found or _text(value.get("text"))


def _packed(text: str) -> Any:
    """The list or object that a text is, or None."""
    text = text.strip()
    if text[:1] not in ("[", "{") or len(text) > _LONGEST_PACKED:
        return None
    document = parse(text.encode("utf-8", "replace"))
    return document if isinstance(document, list | dict) else None


def _url(text: str) -> Iterator[str]:
    scheme, colon, rest = text.partition(":")
    if text[:5].lower() == "data:":
        head, comma, body = rest.partition(",")  # "; BASE64" is base64
        yield storable(f"data:{''.join(head.split()).lower()}{comma}{body}")
        return
    if text[:8].lower().startswith(("http://", "https://")):
        yield storable(f"{scheme.lower()}{colon}{rest}")
        return
    # Neither patterns nor ``str.translate``: they would hold the loop half a second for 20 MB.
    packed = (
        text.replace("\r", "").replace("\n", "").replace("-", "+").replace("_", "/").rstrip("=")
    )
    if _is_base64(packed):  # the downloader tells what it is by its first bytes
        yield f"data:application/octet-stream;base64,{packed}{'=' * (-len(packed) % 4)}"


def _is_base64(text: str) -> bool:
    long = len(text) >= _SHORTEST_BASE64 and text.isascii()
    return long and not text.encode("ascii").translate(None, _BASE64)


def _text(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield "data:text/plain;charset=utf-8," + quote(storable(value))


_OTHERS = (
    *((_urls, name) for name in _SINGLES),
    *((_main_text, name) for name in _SAID_TEXTS),
    *((_urls, name) for name in (_AUDIO, *_FILES)),
)
"""Where an output may be when no list has one."""


def cost(layers: Iterable[Fields]) -> Decimal | None:
    """Return what an answer says its prediction cost in USD; None if it does not.

    ``price`` is a number or text (§15); ``cost`` is believed in the form alone that the API's
    billing gives an amount (§5): decimal text beside its currency.
    """
    for layer in layers:
        told = amount(layer.get("price"))
        if told is not None:
            return told
        billed = layer.get("cost")
        if isinstance(billed, dict) and str(billed.get("currency")).lower() == "usd":
            value = billed.get("value")
            if isinstance(value, str) and _AMOUNT.fullmatch(value):
                return Decimal(value)
    return None


def amount(value: Any) -> Decimal | None:
    """An amount of USD, spelled as a number or as text; None for anything else, or below 0."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        text = str(value).strip()
        usd = Decimal(text) if text.isascii() and len(text) <= _AMOUNT_LENGTH else None
    except (InvalidOperation, ValueError):  # ValueError: an integer of thousands of digits
        return None
    return usd if usd is not None and usd.is_finite() and 0 <= usd <= MOST_USD else None


def error_text(layers: Iterable[Fields]) -> str:
    """Return the first thing said about an error, on one clean line; "" if nothing is."""
    return next((text for layer in layers if (text := _said(layer, _TEXTS))), "")


def failure_text(layers: tuple[Fields, ...], *, enveloped: bool) -> str:
    """Return what is said of a failed prediction, on one clean line; "" if nothing is.

    ``enveloped``: the whole answer is an error, whose own words are often the clearer ones.
    """
    *inner, top = layers
    words = error_text(inner or layers)
    outer = _said(top, _TEXTS) if inner else ""
    if not enveloped or not words or outer in words:
        return words or outer
    return outer if words in outer else clean(f"{outer}: {words}")


def trouble_text(layers: Iterable[Fields]) -> str:
    """Return what is said of trouble beside a prediction that has not failed; "" if nothing is."""
    return next((text for layer in layers if (text := _said(layer, _BESIDE))), "")


def _said(layer: Fields, names: Iterable[str]) -> str:
    return next((text for name in names if (text := _spoken(layer.get(name)))), "")


def _spoken(value: Any, depth: int = _DEPTH) -> str:
    """The words of an error that is a text, an object or a list of them, on one clean line."""
    if isinstance(value, str) and value and value.lower() not in _CALM:
        line = clean(value)
        return "" if line.lower() in _CALM else line
    if isinstance(value, list) and depth:
        return next((text for each in value[:20] if (text := _spoken(each, depth - 1))), "")
    if isinstance(value, dict) and depth:
        told = (_spoken(value.get(name), depth - 1) for name in _OF_ERROR)
        return next(filter(None, told), "")
    return ""


def unsafe(layers: Iterable[Fields]) -> tuple[bool, ...]:
    """Return which outputs are flagged as not safe, in the provider's order; () if none is."""
    for layer in layers:
        for name in _UNSAFE:
            value = layer.get(name)
            flags = value[:_MOST_FLAGS] if isinstance(value, list) else [value]
            if any(map(_is_true, flags)):
                return tuple(map(_is_true, flags))
    return ()


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def error_code(layers: Iterable[Fields]) -> int | None:
    """Return the provider's ``error_code``; 0 means none."""
    for layer in layers:
        error = layer.get("error")
        inner = error if isinstance(error, dict) else {}
        for value in (layer.get("error_code"), inner.get("error_code"), inner.get("code")):
            if code := number(value):
                return code
    return None


def is_plain_url(value: Any) -> bool:
    """Whether an output is a URL as it should be: nothing about it needs repair."""
    return isinstance(value, str) and _PLAIN_URL.fullmatch(value) is not None


def is_moderation(text: str, code: int | None) -> bool:
    """Whether an error means that content moderation refused the input."""
    return code == MODERATED or speaks_of_moderation(text)
