"""A provider's key: where it is read, what tells its account, how answers are kept clean of it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

from multidict import CIMultiDict

from asyncpipe.errors import UsageError
from asyncpipe.http import HttpAnswer

PLACEHOLDER = b"[key]"

SIMULATED_KEY = "simulated"

SHORTEST_SECRET = 12
"""Shorter keys are those of tests; taking every such word out of answers would spoil them."""


def holds_key(variables: Sequence[str]) -> bool:
    """Whether one of these environment variables holds a key."""
    return any(os.environ.get(variable, "").strip() for variable in variables)


def read_key(api_key: str | None, variables: Sequence[str], *, simulated: bool) -> str:
    """Return ``api_key``, or what the first of ``variables`` holds that is there.

    ``simulated`` without a key: any will do. Raises UsageError for a missing or impossible one.
    """
    if api_key is None and simulated:
        return SIMULATED_KEY  # the real key has no business at a simulator
    named = [os.environ.get(variable, "") for variable in variables]
    key = next((found for text in [api_key or "", *named] if (found := text.strip())), "")
    if not key:
        others = f" (or {', '.join(variables[1:])})" if variables[1:] else ""
        raise UsageError(
            f"no API key: set {variables[0]}{others}, or use --simulate, which needs none"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise UsageError(
            "the API key contains spaces, line breaks or letters a key cannot have: copy it again"
        )
    return key


def account_word(key: str) -> str:
    """A word that tells accounts apart: 12 hex digits of a hash of the key; "" without one."""
    # A prefix of its own, so that it cannot be looked up among hashes of keys made elsewhere.
    return hashlib.sha256(f"asyncpipe account {key}".encode()).hexdigest()[:12] if key else ""


def without_key(answer: HttpAnswer, redactor: Redactor | None) -> HttpAnswer:
    """Take the key out of an answer that repeats it, before anything keeps or shows it."""
    if redactor is None:
        return answer
    body = redactor.redact(answer.body)
    lines = "\n".join(answer.headers.values())
    if body is answer.body and not redactor.may_be_in(lines):
        return answer
    headers = [(name, redactor.redact_text(value)) for name, value in answer.headers.items()]
    return replace(answer, headers=CIMultiDict(headers), body=body)


def redactor_of(key: str) -> Redactor | None:
    """What finds a key in answers; None where it is too short to be one."""
    return Redactor(key) if len(key) >= SHORTEST_SECRET else None


class Redactor:
    """Finds one secret however JSON or a URL may spell it: escaped, percent-encoded, recased."""

    def __init__(self, text: str) -> None:
        self._plain, self._text = text.encode().lower(), text.lower()
        self._pattern = re.compile(b"".join(map(_spellings, text)), re.IGNORECASE)

    def __repr__(self) -> str:
        return "Redactor(…)"

    def redact(self, body: bytes) -> bytes:
        """Return ``body`` with a placeholder wherever the secret stood."""
        # The pattern is slow on megabytes of base64; those hold neither of the escapes.
        if b"\\" in body or b"%" in body or self._plain in body.lower():
            return self._pattern.sub(PLACEHOLDER, body)
        return body

    def may_be_in(self, text: str) -> bool:
        """Whether ``redact_text`` could change anything: often it cannot, and this is quick."""
        return "\\" in text or "%" in text or self._text in text.lower()

    def redact_text(self, text: str) -> str:
        """The same for a header's value, which may hold stray bytes."""
        cleaned = self.redact(text.encode("utf-8", "surrogateescape"))
        return cleaned.decode("utf-8", "surrogateescape")


def _spellings(char: str) -> bytes:
    """A pattern for all spellings of one printable ASCII character."""
    code = f"{ord(char):02x}"
    forms = {char, "\\" + char, f"%{code}", quote(char, safe=""), f"\\u00{code}"}
    return b"(?:" + b"|".join(re.escape(form.encode()) for form in sorted(forms)) + b")"
