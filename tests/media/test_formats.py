"""Media told from pages and from each other by their first bytes; what data URIs hold."""

from __future__ import annotations

from functools import partial

import pytest

from asyncpipe.errors import DownloadError
from asyncpipe.jobs.job import JobType
from asyncpipe.media.downloader import SMALL
from asyncpipe.media.ends import broken
from asyncpipe.media.formats import broken_promise, is_page, read_data_uri, recognise, sniff

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
LARGE = b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * (3 * SMALL // 256)
NOISE = b"\x07\x01\x02\x03" * 400


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"ID3\x04", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav"),
        (b"OggS\0\2", "ogg"),
        (b"fLaC\0\0", "flac"),
        (b"\0\0\0\x20ftypM4A ", "m4a"),
        (b"\xff\xf1\x50", "aac"),
    ],
)
def test_audio_is_known_by_its_first_bytes(head: bytes, told: str) -> None:
    """Whatever it is called."""
    assert sniff(head) == told


@pytest.mark.parametrize("url", ["data:", "data:image/png;base64", "data:image/png;base64,@@@a"])
def test_broken_data_uris_are_an_error_of_ours(url: str) -> None:
    """Never another exception."""
    with pytest.raises(DownloadError):
        read_data_uri(url)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>'
GLTF = b'{"asset": {"version": "2.0"}, "meshes": []}'
IMAGE, VIDEO, AUDIO = JobType.IMAGE, JobType.VIDEO, JobType.AUDIO


@pytest.mark.parametrize(
    ("head", "content_type", "url", "kind", "told"),
    [
        (PNG, "video/mp4", "https://x/a.jpg", IMAGE, "png"),
        (SVG, "image/svg+xml", "https://x/a", IMAGE, "svg"),
        (SVG, "text/plain", "https://x/a.png", IMAGE, "svg"),
        (b'<?xml version="1.0"?>\n<!-- a mug -->\n' + SVG, "application/xml", "", IMAGE, "svg"),
        (b"\xef\xbb\xbf<!DOCTYPE svg PUBLIC 'x'>" + SVG, None, "https://x/a", IMAGE, "svg"),
        (GLTF, "application/json", "https://x/a.gltf", IMAGE, "gltf"),
        (b"PK\x03\x04" + bytes(50), "model/vnd.usdz+zip", "https://x/a", IMAGE, "usdz"),
        (b"PK\x03\x04" + bytes(50), None, "https://x/a.usdz?s=1", IMAGE, "usdz"),
        (b"PK\x03\x04" + bytes(50), None, "https://x/a", IMAGE, "zip"),
        (b"\0\0\0\x20ftypisom", "audio/mp4", "https://x/a", AUDIO, "mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", None, "", VIDEO, "mov"),
        (b"\x1aE\xdf\xa3\x01\0\0\0B\x82\x88matroska", None, "", VIDEO, "mkv"),
        (b"WEBVTT\n\n", "text/vtt", "https://x/a", AUDIO, "vtt"),
        ("你好".encode(), "text/plain;charset=utf-8", "data:text/plain,", AUDIO, "txt"),
        (NOISE, "application/octet-stream", "https://x/a.bin?x=.exe", None, "bin"),
        (NOISE, None, "https://x/a.sh%00", None, "png"),
    ],
)
def test_the_bytes_decide_what_a_file_is(
    head: bytes, content_type: str | None, url: str, kind: JobType | None, told: str
) -> None:
    """Not what a server says of it, nor its name."""
    assert recognise(head, content_type, url, kind, "png") == told


@pytest.mark.parametrize("kind", [IMAGE, VIDEO, AUDIO])
@pytest.mark.parametrize(
    ("head", "content_type", "url"),
    [
        (b"upstream connect error or disconnect/reset", "text/plain", "https://x/a.png"),
        (b"Service temporarily unavailable", "application/octet-stream", "https://x/a"),
        (b"<div>503</div>", "text/html", "https://x/a.png"),
        (b"<Error><Code>AccessDenied</Code></Error>", "application/xml", "https://x/a.mp4"),
        (b'<?xml version="1.0"?><Error/>', "image/svg+xml", "https://x/a.svg"),
        (b'{"error": "gone"}', "model/gltf+json", "https://x/a.gltf"),
        ("服务暂时不可用".encode(), "image/png", "https://x/a.png"),
        ("服务暂时不可用".encode() * 30, "image/png", "https://x/a.png"),
        (b"BMW is no bitmap", "image/bmp", "https://x/a.bmp"),
        (b"GIF8 is no picture", "image/gif", "https://x/a.gif"),
        (b"\0", "image/png", "https://x/a.png"),
        (bytes(500), "image/jpeg", "https://x/a.jpg"),
        (NOISE, "application/octet-stream", "https://x/a"),
    ],
)
def test_what_no_first_bytes_tell_is_no_medium(
    head: bytes, content_type: str, url: str, kind: JobType
) -> None:
    """Whatever it is called."""
    with pytest.raises(DownloadError):
        recognise(head[:512], content_type, url, kind)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"ID3\x04", IMAGE),
        (b"RIFF\x24\0\0\0WAVEfmt ", VIDEO),
        (b"\0\0\0\x20ftypisom", IMAGE),
        (PNG, AUDIO),
        (PNG, VIDEO),
        (b"\0\0\0\x20ftypavif", AUDIO),
    ],
)
def test_another_kind_than_was_asked_for_is_none(head: bytes, kind: JobType) -> None:
    """A sound is no picture; the words say what came and what was asked for."""
    with pytest.raises(DownloadError, match=rf"of type {kind.value}"):
        recognise(head, None, "https://x/a", kind)


def box(kind: bytes, size: int = 8, more: bytes = b"") -> bytes:
    return (size + len(more)).to_bytes(4, "big") + kind + bytes(size - 8) + more


FTYP = box(b"ftyp", 24)
RIFF = b"RIFF" + (500).to_bytes(4, "little") + b"WEBP" + bytes(496)
WHOLE = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(40) + b"\0\0\0\0IEND\xaeB`\x82",
    "jpg": b"\xff\xd8\xff\xe0" + bytes(40) + b"\xff\xd9",
    "gif": b"GIF89a" + bytes(40) + b"\0;",
    "webp": RIFF,
    "avi": RIFF,
    "bmp": b"BM" + (60).to_bytes(4, "little") + bytes(54),
    "glb": b"glTF" + (2).to_bytes(4, "little") + (60).to_bytes(4, "little") + bytes(48),
    "zip": b"PK\x03\x04" + bytes(40) + b"PK\x05\x06" + bytes(18),
    "svg": SVG,
    "gltf": GLTF,
    "mp4": FTYP + box(b"mdat", 4000) + box(b"moov", 16),
    "mov": FTYP + box(b"moov", 16) + box(b"mdat", 4000),
    "m4a": FTYP + box(b"free") + box(b"moov", 16) + box(b"mdat", 400),
    "avif": FTYP + box(b"meta", 40) + box(b"mdat", 400),
}


@pytest.mark.parametrize("extension", WHOLE)
def test_a_file_that_is_cut_off_is_told_by_its_end(extension: str) -> None:
    """Where nobody says how long it is."""
    body = WHOLE[extension]

    def problem(body: bytes) -> str | None:
        return broken(extension, len(body), lambda at, n: body[at : at + n], told=False)

    assert problem(body) is None
    assert problem(body[: len(body) // 2]) is not None
    assert problem(body[:-20]) is not None
    assert problem(body[:13]) is not None


def piece_of(body: bytes, at: int, size: int) -> bytes:
    return body[at : at + size]


@pytest.mark.parametrize("told", [True, False])
def test_a_film_without_its_index_is_none(told: bool) -> None:
    """Also where its length is told; and a bare signature is no picture."""
    for body in (FTYP + box(b"mdat", 4000), FTYP + box(b"mdat", 4000)[:2000], FTYP):
        read = partial(piece_of, body)
        assert broken("mp4", len(body), read, told=told)
    assert broken("png", 8, lambda at, n: PNG[:8][at : at + n], told=told)


def test_sizes_of_sounds_that_were_written_as_they_came_are_no_faults() -> None:
    head = b"RIFF\xff\xff\xff\xffWAVE" + bytes(100)
    assert broken("wav", len(head), lambda at, n: head[at : at + n], told=False) is None


def test_pages_are_told_from_media() -> None:
    """HTML, XML and JSON are pages; media and unknown binary are not."""
    assert is_page(b"\n  <html lang='zh'>")
    assert is_page(b'{"error": 1}')
    assert is_page(b"[]")
    assert not is_page(PNG)
    assert not is_page(b"glTF\x02")
    assert sniff(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "webp"


@pytest.mark.parametrize(
    ("head", "content_type", "url", "broken"),
    [
        (NOISE, "image/png", "https://x/a", "png"),
        (NOISE, "video/mp4; x=1", "https://x/a.bin", "mp4"),
        (NOISE, "application/octet-stream", "https://x/a.JPEG?sig=1", "jpeg"),
        (NOISE, None, "https://x/a.webm", "webm"),
        (NOISE, "application/octet-stream", "https://x/a", None),
        (NOISE, "application/octet-stream", "https://x/a.obj", None),
        (PNG, "image/webp", "https://x/a.jpg", None),
        (LARGE, "image/png", "https://x/a.png", None),
        (b"\xff\xf3\x84\xc4" + bytes(99), "audio/mpeg", "https://x/a.mp3", None),
        (b"\x00\x00\x00\x08wide\x00\x00\x01\x00mdat", "video/quicktime", "https://x/a.mov", None),
    ],
)
def test_bytes_that_belie_their_name_are_told(
    head: bytes, content_type: str | None, url: str, broken: str | None
) -> None:
    """Only where a kind is claimed that has first bytes we know; any known media will do."""
    assert broken_promise(head, content_type, url) == broken
