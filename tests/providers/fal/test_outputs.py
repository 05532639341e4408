"""Where media are in the outputs of fal's models."""

from __future__ import annotations

from typing import Any

import pytest

from asyncpipe.providers.fal.outputs import extras, outputs, unsafe

A, B, C = (f"https://v3.fal.media/files/{name}" for name in ("a.png", "b.png", "c.bin"))


def file(url: str, kind: str = "image/png") -> dict[str, Any]:
    return {"url": url, "content_type": kind, "file_name": "x", "file_size": 7}


@pytest.mark.parametrize(
    ("document", "found", "beside"),
    [
        ({"images": [file(A), file(B)], "seed": 1}, (A, B), ()),
        ({"image": {"url": A}}, (A,), ()),
        ({"image": file(A), "mask_image": file(B)}, (A,), (B,)),
        ({"video": {"url": C}}, (C,), ()),
        ({"audio": {"url": C}}, (C,), ()),
        ({"audio_file": file(C)}, (C,), ()),
        ({"audio_url": C}, (C,), ()),
        ({"images": [A, "data:image/png;base64,AAAA"]}, (A, "data:image/png;base64,AAAA"), ()),
        ({"model_mesh": file(C), "thumbnail": file(A)}, (C,), (A,)),
        # Forms that nobody wrote down: every file there is, and no mere link.
        ({"result": {"parts": [file(A), {"url": B}]}}, (A,), ()),
        ({"output": [{"frames": [file(A), file(B)]}]}, (A, B), ()),
        # A picture beside a film, or a sound, is none of what was asked for.
        ({"mask": file(A), "result": [file(C, "video/mp4")]}, (C,), (A,)),
        ({"cover": file(A), "result": [file(C, "audio/wav"), file(B)]}, (C,), (A, B)),
        ({"docs": {"url": "https://fal.ai/docs"}}, (), ()),
        ({"images": [], "video": file(C)}, (C,), ()),
        ({"images": [file(A), file(A)]}, (A,), ()),
        # What was heard.
        (
            {"text": "a mug", "chunks": [{"text": "a"}]},
            ("data:text/plain;charset=utf-8,a%20mug",),
            (),
        ),
        ({}, (), ()),
        ({"images": [{"url": "ftp://x/y"}, {"url": 7}, None, 3]}, (), ()),
    ],
)
def test_outputs_and_what_is_beside_them(
    document: Any, found: tuple[str, ...], beside: tuple[str, ...]
) -> None:
    assert outputs(document) == found
    assert (extras(document, found) if found else ()) == beside


def test_no_depth_is_too_much() -> None:
    deep: Any = file(A)
    for _ in range(1000):
        deep = {"in": [deep]}
    assert outputs(deep) == ()


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        ([False, True], (False, True)),
        ([False], ()),
        (True, (True,)),
        (None, ()),
        ("true", ()),
    ],
)
def test_which_outputs_are_flagged(told: Any, flags: tuple[bool, ...]) -> None:
    assert unsafe({"has_nsfw_concepts": told}) == flags
