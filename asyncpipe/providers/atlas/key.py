"""A secret, and how to take it out of what others send us."""

from __future__ import annotations

import re
from urllib.parse import quote

PLACEHOLDER = b"[key]"


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
