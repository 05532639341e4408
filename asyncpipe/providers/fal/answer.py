"""One HTTP answer of fal, opened: its body, what it says of an error, its trace id; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asyncpipe.http import header
from asyncpipe.providers.texts import Fields, clean, page_text, read_json

_MOST_DETAILS = 3

_WORD = re.compile(r"[\w.-]{1,80}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Detail:
    """One thing an error says: its type, its words, and the field it is about; each may be ""."""

    type: str
    text: str
    field: str = ""

    def __str__(self) -> str:
        words = f"{self.type}: {self.text}" if self.type and self.text else self.type or self.text
        return f"{words} ({self.field})" if self.field else words


@dataclass(frozen=True, kw_only=True, slots=True)
class FalAnswer:
    """One answer; ``document`` is its JSON object, or None: then ``page`` is what stands there.

    ``details`` are what an error says, ``typed`` whether it says so in the form that models'
    errors have: a list. ``error_type`` is the queue's own word for what went wrong; "" for none.
    ``request_id`` is the trace that fal's gateway leaves; ``ingress``: that is missing, and nginx
    speaks, so that the gateway was not reached (the test that fal's own client has for it).
    """

    status: int
    headers: Mapping[str, str]
    document: Fields | None
    details: tuple[Detail, ...]
    typed: bool
    error_type: str
    page: str
    request_id: str | None
    ingress: bool

    @property
    def said(self) -> str:
        """What it says of an error, on one clean line; "" for nothing."""
        if self.document is None:
            return self.page
        words = "; ".join(filter(None, map(str, self.details)))
        if self.error_type and self.error_type not in words:
            words = f"{self.error_type}: {words}" if words else self.error_type
        return clean(words)

    @property
    def speaks(self) -> bool:
        """Whether fal itself says what is wrong, and not some proxy before it."""
        return bool(self.details or self.error_type)


def open_answer(status: int, headers: Mapping[str, str], body: bytes) -> FalAnswer:
    """Open an answer, whatever its body is; what an error echoes of the input is left out."""
    document = read_json(body)
    told = (document or {}).get("detail")
    kind = header(headers, "X-Fal-Error-Type") or (document or {}).get("error_type")
    trace = header(headers, "x-fal-request-id")
    return FalAnswer(
        status=status,
        headers=headers,
        document=document,
        details=tuple(_details(document or {})),
        typed=isinstance(told, list) and bool(told),
        error_type=_word(kind),
        page=page_text(body) if document is None else "",
        request_id=(trace and clean(trace, 200)) or None,
        ingress=document is None and not trace and b"nginx" in body[:4096].lower(),
    )


def _details(document: Fields) -> Iterator[Detail]:
    told = document.get("detail")
    for each in told[:_MOST_DETAILS] if isinstance(told, list) else [told]:
        if isinstance(each, str) and each:
            yield Detail(type="", text=clean(each))
        elif isinstance(each, dict):
            words = each.get("msg") or each.get("message") or each.get("detail")
            yield Detail(
                type=_word(each.get("type")),
                text=clean(words) if isinstance(words, str) else "",
                field=_field(each.get("loc")),
            )
    if told is None and isinstance(error := document.get("error"), str) and error:
        yield Detail(type="", text=clean(error))


def _field(loc: Any) -> str:
    """The field an error is about, as ``image.url``; "" where it is about all of the body."""
    names = [str(name) for name in loc if isinstance(name, str | int)] if _is_list(loc) else []
    return clean(".".join(names[1:] if names[:1] == ["body"] else names), 80)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 20


def _word(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
