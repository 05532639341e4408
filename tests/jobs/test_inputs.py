"""Which values of a job are local files, wherever they stand."""

from __future__ import annotations

import pytest

from asyncpipe.jobs.inputs import is_local, local_media, with_media, wrong_with


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("photos/杯子.jpg", True),
        ("a.png", True),
        ("C:\\photos\\a.png", True),
        ("file:///srv/a.png", True),
        ("https://x/a.png", False),
        ("HTTP://x/a.png", False),
        ("data:image/png;base64,AA==", False),
        ("asset://a1b2", False),
        ("QUFB" * 100, False),
        ("", False),
    ],
)
def test_urls_data_and_base64_pass_through_all_else_is_a_path(text: str, local: bool) -> None:
    """Whoever writes a path wrong is told so; a URL is never taken for one."""
    assert is_local(text) is local


def test_media_are_found_wherever_they_stand_and_nothing_else() -> None:
    """In lists, and in mappings of lists; a style called ``a.png`` is not a file."""
    params = {
        "image": "a.png",
        "images": ["b.png", "https://x/c.png"],
        "references": [{"audio_url": "v.mp3", "weight": 1}, {"text": "d.png"}],
        "style": "e.png",
        "last_image": None,
        "video": True,
        "start_image_url": "f.png",
    }
    found = dict(local_media(params))
    assert found == {
        "image": "a.png",
        "images[0]": "b.png",
        "references[0].audio_url": "v.mp3",
        "start_image_url": "f.png",
    }
    sent = with_media(
        params, {text: f"https://u/{text}" for text in found.values()} | {"e.png": "!"}
    )
    assert sent["images"] == ["https://u/b.png", "https://x/c.png"]
    assert sent["references"][0] == {"audio_url": "https://u/v.mp3", "weight": 1}
    assert sent["references"][1] == {"text": "d.png"}
    assert (sent["style"], sent["video"], sent["last_image"]) == ("e.png", True, None)
    assert params["image"] == "a.png", "the job itself is not changed"


@pytest.mark.parametrize(
    "text",
    [
        *("htps://example.com/a.jpg", "mug:blue.jpg", "https:/example.com/a.jpg", "https:a.jpg"),
        *("blob:https://site/123", "oss://bucket/a.jpg", "hdfs://b/a.jpg", "ftp://x/a.jpg"),
        *("//example.com/a.jpg", "http://", "https:///a.jpg", "data:image/png", "javascript:1"),
        *("C:\new\test.jpg", "photos\table.png", "C:\\a\x07b.png", "a\u2028b.png"),
    ],
)
def test_what_is_neither_a_url_nor_a_path_is_told(text: str) -> None:
    """Nobody could fetch it, and the job would be paid for."""
    assert wrong_with(text)


@pytest.mark.parametrize(
    "text",
    [
        *("https://example.com/my photo.jpg", "HTTPS://例子.cn/杯.jpg", "http://127.0.0.1:1/a"),
        *("photos/杯子.jpg", "./mug:blue.jpg", "C:\\new\\test.jpg", "\\\\server\\a.jpg", "a.jpg"),
        *("data:image/png;base64,AA==", "asset://a1", "QUFB" * 100, "file:///srv/a.png"),
        "https://example.com/a.jpg\n",
    ],
)
def test_urls_paths_and_data_are_taken(text: str) -> None:
    """Spaces, other scripts, drives and shares included; a file: URL is told by who opens it."""
    assert wrong_with(text) is None
