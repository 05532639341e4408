"""What a file of media is, by its first bytes: pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

HEAD_BYTES = 512
"""How much of a file the functions here want to see."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (4, b"ftypqt", "mov"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypheic", "heic"),
    (4, b"ftypM4A", "m4a"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"glTF", "glb"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"%PDF", "pdf"),
)

_CONTENT_TYPES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "model/gltf-binary": "glb",
    "text/plain": "txt",
}

_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*(<(!doctype|html|head|body|\?xml|error)|[{\[]\s*[\"{\[\]}])", re.I
)


def sniff(head: bytes) -> str | None:
    """The extension that the first bytes of a file tell, or None."""
    for offset, magic, extension in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return extension
    return None


def is_page(head: bytes) -> bool:
    """Whether these are the first bytes of a web page, an XML error or JSON, not of media."""
    return _PAGE.match(head) is not None


def extension(head: bytes, content_type: str | None, url: str, default: str) -> str:
    """Choose a file's extension: first bytes, then Content-Type, then the URL, then ``default``."""
    told = sniff(head) or _CONTENT_TYPES.get((content_type or "").split(";")[0].strip().lower())
    if told:
        return told
    path = urlsplit(url).path if not url.startswith("data:") else ""
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    return suffix if re.fullmatch(r"[a-z0-9]{2,5}", suffix) else default
