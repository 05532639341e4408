"""One HTTP answer of Atlas Cloud, opened: its body, its code, its trace id, its wish to wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from asyncpipe.http import header
from asyncpipe.providers.atlas import fields
from asyncpipe.providers.texts import clean, page_text, read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiAnswer:
    """One answer: ``code`` is what it comes down to, as an HTTP status, and 200 is good.

    ``document`` is its JSON object, or None; then ``page`` is what stands there instead.
    """

    status: int
    code: int
    document: fields.Fields | None
    layers: tuple[fields.Fields, ...]
    headers: Mapping[str, str]
    page: str
    request_id: str | None

    @property
    def said(self) -> str:
        """What it says of an error, on one line; looked for only when somebody asks."""
        return self.page if self.document is None else fields.error_text(self.layers)

    @property
    def inner(self) -> tuple[fields.Fields, ...]:
        """What stands under ``data``: it speaks of the prediction, not of the request."""
        return self.layers[:-1]


def open_answer(status: int, headers: Mapping[str, str], body: bytes) -> ApiAnswer:
    """Open an answer, whatever its body is."""
    document = read_json(body)
    layers = fields.layers_of(document or {})
    trace = header(headers, "X-Request-ID") or next(
        (found for layer in reversed(layers) if (found := trace_id(layer))), ""
    )
    return ApiAnswer(
        status=status,
        code=_code(status, document),
        document=document,
        layers=layers,
        headers=headers,
        page=page_text(body) if document is None else "",
        request_id=clean(trace, 200) or None,
    )


def trace_id(layer: fields.Fields) -> str:
    """Return the layer's ``request_id``; "" if there is none."""
    return fields.identifier(layer, ("request_id", "requestId"))


def _code(status: int, document: fields.Fields | None) -> int:
    told = fields.number(document.get("code")) if document is not None else None
    if told is not None and 400 <= told < 500:
        return told  # an explicit refusal in the API's own words, whatever a gateway made of it
    if not 200 <= status < 300:
        return status
    return 200 if told is None or told == 0 or 200 <= told < 300 else told
