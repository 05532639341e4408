"""Media told from pages and from each other by their first bytes; what data URIs hold."""

from __future__ import annotations

import pytest

from asyncpipe.errors import DownloadError
from asyncpipe.media.downloader import SMALL
from asyncpipe.media.formats import broken_promise, extension, is_page, read_data_uri, sniff

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


@pytest.mark.parametrize(
    ("head", "content_type", "url", "told"),
    [
        (PNG, "video/mp4", "https://x/a.jpg", "png"),
        (b"????", "image/webp; q=1", "https://x/a.jpg", "webp"),
        (b"????", "application/octet-stream", "https://x/a.glb?x=.exe", "glb"),
        (b"????", None, "https://x/noname", "png"),
        (b"????", None, "https://x/a.sh%00", "png"),
        (b"\x00\x00\x00\x14ftypqt  ", None, "", "mov"),
    ],
)
def test_extensions_come_from_bytes_then_type_then_url(
    head: bytes, content_type: str | None, url: str, told: str
) -> None:
    """Magic bytes win over what a server says."""
    assert extension(head, content_type, url, "png") == told


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
        (NOISE, "text/plain", "https://x/a.png", None),
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
