"""What a file of media is, by its first bytes, and what a data URI holds: pure."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from asyncpipe.errors import DownloadError

HEAD_BYTES = 512
"""How much of a file the functions here want to see."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF8", "gif"),
    (0, b"BM", "bmp"),
    (8, b"WEBP", "webp"),
    (8, b"WAVE", "wav"),
    (8, b"AVI ", "avi"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (4, b"ftypqt", "mov"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypavis", "avif"),
    (4, b"ftyphei", "heic"),
    (4, b"ftypmif1", "heic"),
    (4, b"ftypM4A", "m4a"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mov"),  # QuickTime before there was ftyp
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (0, b"ID3", "mp3"),
    *((0, b"\xff" + bytes([second]), "mp3") for second in b"\xfb\xfa\xf3\xf2\xe3\xe2"),
    *((0, b"\xff" + bytes([second]), "aac") for second in b"\xf1\xf9"),
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
    "image/jpg": "jpg",
    "image/bmp": "bmp",
    "image/avif": "avif",
    "image/heic": "heic",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/vnd.wave": "wav",
    "audio/aac": "aac",
    "audio/mp4": "m4a",
    "audio/x-m4a": "m4a",
    "audio/x-flac": "flac",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "model/gltf-binary": "glb",
    "text/plain": "txt",
}

_MEDIA_TYPES = {"jpg": "image/jpeg", "mp3": "audio/mpeg", "mov": "video/quicktime"} | {
    ending: f"{kind}/{ending}"
    for kind, endings in {
        "image": ("png", "gif", "bmp", "webp", "avif", "heic", "tiff"),
        "video": ("mp4", "webm"),
        "audio": ("wav", "ogg", "flac", "aac"),
    }.items()
    for ending in endings
}

_MEDIA_TYPES["m4a"] = "audio/mp4"

_KNOWN = frozenset(told for _, _, told in _MAGIC) | {"jpeg"}

_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*(<(!doctype|html|head|body|\?xml|error)|[{\[]\s*[\"{\[\]}])", re.I
)


def sniff(head: bytes) -> str | None:
    """The extension that the first bytes of a file tell, or None."""
    for offset, magic, extension in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return extension
    return None


def media_type(head: bytes) -> tuple[str, str]:
    """The ending and the media type that the first bytes of a file tell; of others, of any file."""
    ending = sniff(head) or "bin"
    return ending, _MEDIA_TYPES.get(ending, "application/octet-stream")


def is_page(head: bytes) -> bool:
    """Whether these are the first bytes of a web page, an XML error or JSON, not of media."""
    return _PAGE.match(head) is not None


def extension(head: bytes, content_type: str | None, url: str, default: str) -> str:
    """Choose a file's extension: first bytes, then Content-Type, then the URL, then ``default``."""
    told = sniff(head) or _typed(content_type)
    if told:
        return told
    suffix = _suffix(url)
    return suffix if re.fullmatch(r"[a-z0-9]{2,5}", suffix) else default


def broken_promise(head: bytes, content_type: str | None, url: str) -> str | None:
    """Return the format that Content-Type or else the URL claims and the first bytes belie.

    None when nothing is claimed that has first bytes we know, or when they are those of any kind of
    media: what it is then counts, not what it is called.
    """
    claimed = _typed(content_type) or _suffix(url)
    return claimed if claimed in _KNOWN and sniff(head) is None else None


def _typed(content_type: str | None) -> str | None:
    return _CONTENT_TYPES.get((content_type or "").split(";")[0].strip().lower())


def _suffix(url: str) -> str:
    path = urlsplit(url).path if not url.startswith("data:") else ""
    return PurePosixPath(path).suffix.lower().lstrip(".")


def read_data_uri(url: str) -> tuple[str, bytes]:
    """Split a data URI into content type and bytes; raises DownloadError if it is not one."""
    head, comma, body = url.partition(",")
    content_type, *parameters = head.removeprefix("data:").split(";")
    if not comma:
        raise DownloadError("an output is a data URI without any media in it")
    raw = unquote_to_bytes(body)
    if "base64" not in parameters:
        return content_type, raw
    try:
        return content_type, base64.b64decode(raw, validate=False)
    except binascii.Error as exc:
        raise DownloadError(f"an output is a data URI that is not base64: {exc}") from exc
