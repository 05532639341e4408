"""What a file of media is, by its first bytes, and what a data URI holds: pure."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

from asyncpipe.errors import DownloadError
from asyncpipe.jobs import JobType

HEAD_BYTES = 512
"""How much of a file the functions here want to see."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "png"),
    (0, b"\xff\xd8\xff", "jpg"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"II*\0", "tiff"),
    (0, b"MM\0*", "tiff"),
    (0, b"8BPS", "psd"),
    (0, b"v/1\x01", "exr"),
    (0, b"\xff\x0a", "jxl"),
    (4, b"JXL \r\n", "jxl"),
    (4, b"ftypqt", "mov"),
    (4, b"ftypavif", "avif"),
    (4, b"ftypavis", "avif"),
    (4, b"ftyphei", "heic"),
    (4, b"ftyphev", "heic"),
    (4, b"ftypmif1", "heic"),
    (4, b"ftypM4A", "m4a"),
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mov"),  # QuickTime before there was ftyp
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (0, b"\x1aE\xdf\xa3", "webm"),
    (0, b"FLV\x01", "flv"),
    (0, b"\0\0\x01\xba", "mpg"),
    (0, b"\0\0\x01\xb3", "mpg"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "wmv"),
    (0, b"ID3", "mp3"),
    *((0, b"\xff" + bytes([second]), "mp3") for second in b"\xfb\xfa\xf3\xf2\xe3\xe2"),
    *((0, b"\xff" + bytes([second]), "aac") for second in b"\xf1\xf9"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"MThd", "mid"),
    (0, b"#!AMR", "amr"),
    (0, b"caff", "caf"),
    (0, b"glTF", "glb"),
    (0, b"Kaydara FBX Binary", "fbx"),
    (0, b"ply\n", "ply"),
    (0, b"ply\r\n", "ply"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"%PDF", "pdf"),
)

_RIFF = {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}

_MODELS = frozenset({"glb", "gltf", "usdz", "fbx", "ply", "obj", "zip"})

_OF_KIND: dict[JobType, frozenset[str]] = {
    JobType.IMAGE: frozenset(
        {"png", "jpg", "gif", "bmp", "webp", "tiff", "avif", "heic", "svg", "psd", "exr", "jxl"}
    )
    | _MODELS
    | {"pdf"},
    JobType.VIDEO: frozenset(
        {"mp4", "mov", "webm", "mkv", "avi", "gif", "webp", "avif", "flv", "mpg", "wmv"}
    )
    | _MODELS,
    JobType.AUDIO: frozenset(
        {"mp3", "wav", "ogg", "flac", "aac", "m4a", "mp4", "webm", "mid", "amr", "caf", "aiff"}
    )
    | {"txt", "vtt", "srt", "zip"},
}
"""What may come of a job of each kind; models in three dimensions are made by jobs of two."""

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
    "image/svg+xml": "svg",
    "model/gltf-binary": "glb",
    "model/gltf+json": "gltf",
    "model/vnd.usdz+zip": "usdz",
}

_MEDIA_TYPES = {
    f"{kind}/{told}": endings
    for kind, told, endings in (
        *(("image", each, (each,)) for each in ("png", "gif", "bmp", "webp", "avif", "heic")),
        ("image", "jpeg", ("jpg", "jpeg", "jpe", "jfif")),
        ("image", "tiff", ("tiff", "tif")),
        ("video", "mp4", ("mp4", "m4v")),
        ("video", "quicktime", ("mov", "qt")),
        ("video", "webm", ("webm",)),
        ("video", "x-matroska", ("mkv",)),
        ("video", "x-msvideo", ("avi",)),
        ("video", "mpeg", ("mpg", "mpeg")),
        ("audio", "mpeg", ("mp3", "mpga")),
        ("audio", "wav", ("wav", "wave")),
        ("audio", "ogg", ("ogg", "oga", "opus")),
        ("audio", "flac", ("flac",)),
        ("audio", "aac", ("aac",)),
        ("audio", "mp4", ("m4a", "m4b")),
        ("audio", "webm", ("weba",)),
        ("audio", "x-matroska", ("mka",)),
        ("audio", "aiff", ("aiff", "aif", "aifc")),
        ("audio", "midi", ("mid", "midi")),
        ("audio", "amr", ("amr",)),
        ("audio", "x-caf", ("caf",)),
        ("model", "gltf-binary", ("glb",)),
        ("model", "vnd.usdz+zip", ("usdz",)),
        ("application", "zip", ("zip",)),
    )
}
"""What files are sent as, and how the names of such files end; the first of each tells nothing."""

_TYPE_OF = {ending: told for told, endings in _MEDIA_TYPES.items() for ending in endings}

_SAME_BYTES = {
    "mp4": ("mp4", "m4v", "m4a", "m4b"),
    "m4a": ("m4a", "m4b"),
    "webm": ("webm", "weba"),
    "mkv": ("mkv", "mka"),
    "zip": ("zip", "usdz"),
}
"""Formats of which a name alone tells what is in them; of others any name of their type will do."""

_KNOWN = frozenset(told for _, _, told in _MAGIC) | {*_RIFF.values(), "bmp", "jpeg", "svg"}

_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*(<(!doctype|html|head|body|\?xml|error)|[{\[]\s*[\"{\[\]}])", re.I
)


def sniff(head: bytes) -> str | None:
    """The extension that the first bytes of a file tell, or None."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:2] == b"BM" and head[6:10] == bytes(4) and len(head) > 14:  # not a word that begins so
        return "bmp"
    for offset, magic, extension in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return "mkv" if extension == "webm" and b"matroska" in head[:64] else extension
    return None


def media_type(head: bytes, name: str = "") -> tuple[str, str]:
    """The ending and the media type of a file, by its first bytes and its name.

    The name's own ending stays, where the bytes do not belie it.
    """
    told = sniff(head) or "bin"
    named = PurePosixPath(name).suffix.lower().lstrip(".")
    own = _TYPE_OF.get(told)
    if named in _SAME_BYTES.get(told, _MEDIA_TYPES[own] if own else ()):
        told = named
    return told, _TYPE_OF.get(told, "application/octet-stream")


def type_of_name(name: str) -> str | None:
    """The media type of a file of ours, whose ending says what its bytes are; or None."""
    return _TYPE_OF.get(PurePosixPath(name).suffix.lower().lstrip("."))


def is_page(head: bytes) -> bool:
    """Whether these are the first bytes of a web page, an XML error or JSON, not of media."""
    return _PAGE.match(head) is not None


def recognise(
    head: bytes, content_type: str | None, url: str, kind: JobType | None, default: str = ""
) -> str:
    """The extension of a file of media by its first bytes, whatever it is called.

    Text is none, unless it is of a format that is known. ``kind`` is what was asked for; where
    nobody says, unknown bytes that do not claim to be anything else get ``default``. Raises
    DownloadError, whose words go behind the URL.
    """
    told = sniff(head) or _text_format(head, content_type, url, kind)
    if told == "zip" and "usdz" in (_typed(content_type), _suffix(url)):
        told = "usdz"
    if told is None:
        told = _unknown(head, content_type, url, kind, default)
    if kind is not None and told not in _OF_KIND[kind]:
        raise DownloadError(f"is {told}, and the job is of type {kind.value}")
    return told


def _unknown(
    head: bytes, content_type: str | None, url: str, kind: JobType | None, default: str
) -> str:
    if is_page(head) or _is_text(head):
        raise DownloadError(f"is a page of text, not media: {head[:60]!r}")
    if claimed := broken_promise(head, content_type, url):
        raise DownloadError(f"is no {claimed}, it begins {head[:16]!r}")
    if kind is not None or not default:
        raise DownloadError(f"is no media of any kind that is known, it begins {head[:16]!r}")
    suffix = _typed(content_type) or _suffix(url)
    return suffix if re.fullmatch(r"[a-z0-9]{2,5}", suffix) else default


_SVG = re.compile(
    rb"(<\?xml[^>]*\?>\s*)?(<!--.*?-->\s*|<!doctype\s+svg[^>]*(\[.*?\])?\s*>\s*)*<(\w+:)?svg[\s>]",
    re.I | re.S,
)

_GLTF = re.compile(rb'"(asset|scenes?|meshes|buffers|bufferViews|accessors|nodes|materials)"\s*:')

_SUBTITLES = re.compile(rb"\d+\s*\n\d+:\d\d:\d\d[,.]\d+\s*-->")

_OBJ = re.compile(rb"(#[^\n]*\n\s*)*(v|vn|vt|o|g|mtllib|usemtl) \S")


def _text_format(
    head: bytes, content_type: str | None, url: str, kind: JobType | None
) -> str | None:
    """The extension of text that is a medium all the same, or None."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _SVG.match(text):
        return "svg"
    if text[:1] == b"{" and _GLTF.search(text):
        return "gltf"
    if text.startswith(b"WEBVTT"):
        return "vtt"
    if _SUBTITLES.match(text):
        return "srt"
    if _suffix(url) == "obj" and _OBJ.match(text):
        return "obj"
    # What was said or sung comes inside the provider's answer.
    said = url.startswith("data:") and (content_type or "").startswith("text/plain")
    return "txt" if said and kind in (None, JobType.AUDIO) else None


def _is_text(head: bytes) -> bool:
    """Whether these bytes read as text: no media begin like that."""
    try:
        text = head.decode()
    except UnicodeDecodeError as exc:
        if exc.start < len(head) - 3:  # not merely a character that is cut off
            return False
        text = head[: exc.start].decode()
    return text.isprintable() or all(c.isprintable() or c in "\t\r\n\f" for c in text)


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


_PIECE = 1024 * 1024

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

_NOT_BASE64 = bytes({*range(256)} - {*_BASE64})


def _decode(text: bytes) -> bytes:
    """Decode base64 piece by piece: each holds all other threads for as long as it takes."""
    text = text.translate(None, _NOT_BASE64)
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    return b"".join(map(base64.b64decode, pieces))


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
        return content_type, _decode(raw)
    except binascii.Error as exc:
        raise DownloadError(f"an output is a data URI that is not base64: {exc}") from exc
