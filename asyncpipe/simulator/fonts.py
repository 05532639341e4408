"""A font that has Chinese, and what to draw for characters it has not."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from asyncpipe.errors import UsageError

MISSING = "〓"
"""Stands for a character without a glyph: the printers' mark for a missing type."""

_SYSTEM = (
    "C:/Windows/Fonts/msyh.ttc",
    "C:/Windows/Fonts/simhei.ttf",
    "/System/Library/Fonts/PingFang.ttc",
    "/System/Library/Fonts/Hiragino Sans GB.ttc",
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
)

_NOBODY_HAS = "\U0010fffe"


def font_path() -> Path:
    """Where a font with Chinese is: our extra's, else the system's; UsageError without one."""
    try:
        from pylopdf_fonts_zh_cn import sans_path
    except ImportError:
        pass
    else:
        return Path(sans_path())
    for name in _SYSTEM:
        if Path(name).is_file():
            return Path(name)
    raise UsageError("the simulator finds no Chinese font: pip install 'asyncpipe[simulator]'")


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at ``size`` pixels."""
    return ImageFont.truetype(str(font_path()), size)


@lru_cache(maxsize=8192)
def has_glyph(character: str) -> bool:
    """Whether the font draws ``character`` as itself and not as an empty box."""
    face = font(20)
    return character.isspace() or bytes(face.getmask(character)) != bytes(face.getmask(_NOBODY_HAS))


def drawable(text: str) -> str:
    """Replace what the font cannot draw."""
    return "".join(c if has_glyph(c) else MISSING for c in text)
