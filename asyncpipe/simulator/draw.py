"""Pictures and clips that show what they were asked to be."""

from __future__ import annotations

import colorsys
import hashlib
import io
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from PIL import Image, ImageDraw

from asyncpipe.simulator.fonts import drawable, font
from asyncpipe.simulator.prices import seconds_asked

FRAMES_A_SECOND = 2

_RESOLUTIONS = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160)}

_RATIO = re.compile(r"(\d{1,3}):(\d{1,3})")

_SIZE = re.compile(r"(\d{2,4})[*xX](\d{2,4})")

_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"

_CLOSING = "，。、；：！？）》」』】…"  # never at the beginning of a line

_PIECE = re.compile(rf"[{_WIDE}][{_CLOSING}]*|\s+|[^\s{_WIDE}]+")

INK, SOFT, PAPER = 255, 60, 0  # tones between the two colours of a picture


def draw_picture(body: dict[str, Any], index: int, count: int) -> bytes:
    """Draw a PNG of the asked size with prompt, model and size on it."""
    size = picture_size(body)
    note = f"{size[0]} x {size[1]}" + (f"   {index + 1} of {count}" if count > 1 else "")
    image = _coloured(_sheet(body, size, note), _palette(_said(body), index))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def draw_clip(body: dict[str, Any], index: int, count: int) -> bytes:
    """Draw an H.264 MP4 of the asked duration and resolution; a bar moves through it."""
    del count
    width, height = clip_size(body)
    seconds = seconds_asked(body)
    sheet = _sheet(body, (width, height), f"{width} x {height}   {seconds:g} s")
    palette = _palette(_said(body), index)
    out = io.BytesIO()
    frames = max(1, round(seconds * FRAMES_A_SECOND))
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "30"}
        stream.time_base = Fraction(1, FRAMES_A_SECOND)
        for number in range(frames):
            image = _coloured(_with_bar(sheet, number + 1, frames), palette)
            frame = av.VideoFrame.from_image(image.convert("RGB"))
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_A_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def picture_size(body: dict[str, Any]) -> tuple[int, int]:
    """Width and height a request asks for, in pixels; 1024 x 1024 when it leaves them open."""
    match = _SIZE.fullmatch(str(body.get("size", "")))
    if match:
        return _clamp(int(match[1])), _clamp(int(match[2]))
    ratio = _RATIO.fullmatch(str(body.get("aspect_ratio", "")))
    if ratio and int(ratio[1]) and int(ratio[2]):
        across, down = int(ratio[1]), int(ratio[2])
        scale = (1024 * 1024 / (across * down)) ** 0.5
        return _clamp(round(across * scale)), _clamp(round(down * scale))
    sides = [body.get(name) for name in ("width", "height")]
    width, height = (s if isinstance(s, int) and not isinstance(s, bool) else 1024 for s in sides)
    return _clamp(width), _clamp(height)


def clip_size(body: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a clip by resolution and aspect ratio; both even."""
    width, height = _RESOLUTIONS.get(str(body.get("resolution", "")).lower(), (1920, 1080))
    ratio = _RATIO.fullmatch(str(body.get("aspect_ratio", "")))
    if ratio and int(ratio[1]) and int(ratio[2]):
        across, down = int(ratio[1]), int(ratio[2])
        short = height
        width = round(short * max(across, down) / min(across, down))
        width, height = (width, short) if across >= down else (short, width)
    return width // 2 * 2, height // 2 * 2


def _said(body: dict[str, Any]) -> str:
    """The prompt; what a tool works on where there is none."""
    return str(body.get("prompt") or body.get("text") or body.get("image") or body["model"])


def _clamp(side: int) -> int:
    return min(max(side, 64), 4096)


def _sheet(body: dict[str, Any], size: tuple[int, int], note: str) -> Image.Image:
    """Paper, a soft disc, the prompt, and a footer with model and note."""
    width, height = size
    image = Image.new("L", size, PAPER)
    pen = ImageDraw.Draw(image)
    short, margin = min(size), max(4, min(size) // 14)
    pen.ellipse((width - short * 0.7, -short * 0.35, width + short * 0.35, short * 0.7), fill=SOFT)
    pen.rectangle((margin, margin, margin + short // 8, margin + max(2, short // 100)), fill=INK)
    small = max(8, short // 36)
    footer = height - margin - small
    line = _short(drawable(f"{body['model']}   {note}"), width - 2 * margin, small)
    _write(image, (margin, footer), [line], small)
    room = (width - 2 * margin, footer - 2 * margin - max(4, short // 30))
    lines, letter = _fitted(drawable(" ".join(_said(body).split())), room, short)
    _write(image, (margin, margin + max(6, short // 20)), lines, letter)
    return image


def _fitted(text: str, room: tuple[int, int], short: int) -> tuple[list[str], int]:
    """Break ``text`` into lines at the largest letter that leaves it inside ``room``."""
    letter = max(10, short // 14)
    while True:
        lines = list(_lines(text, room[0], letter))
        most = max(1, int(room[1] / (letter * 1.4)))
        if len(lines) <= most:
            return lines, letter
        if letter <= max(10, short // 40):
            return [*lines[: most - 1], lines[most - 1][:-1] + "…"], letter
        letter = max(10, int(letter * 0.85))


def _lines(text: str, width: int, letter: int) -> Iterator[str]:
    face, line = font(letter), ""
    for piece in _PIECE.findall(text):
        if line and face.getlength(line + piece.rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += piece if line else piece.lstrip()
        while face.getlength(line.rstrip()) > width and len(line) > 1:  # one very wide word
            cut = max(1, int(len(line) * width / face.getlength(line)))
            yield line[:cut]
            line = line[cut:]
    if line.strip():
        yield line.rstrip()


def _short(text: str, width: int, letter: int) -> str:
    face = font(letter)
    while len(text) > 1 and face.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _write(image: Image.Image, at: tuple[int, int], lines: list[str], letter: int) -> None:
    pen, (x, y) = ImageDraw.Draw(image), at
    for line in lines:
        pen.text((x, y), line, fill=INK, font=font(letter))
        y += int(letter * 1.4)


def _coloured(tones: Image.Image, palette: list[int]) -> Image.Image:
    """Turn grey tones into colours: a palette keeps the file small and the drawing quick."""
    image = Image.frombytes("P", tones.size, tones.tobytes())
    image.putpalette(palette)
    return image


def _with_bar(image: Image.Image, number: int, frames: int) -> Image.Image:
    frame = image.copy()
    width, height = frame.size
    thick = max(4, height // 60)
    end = int(width * number / frames)
    ImageDraw.Draw(frame).rectangle((0, height - thick, end, height), fill=INK)
    return frame


def _palette(prompt: str, index: int) -> list[int]:
    """256 tones from a dark paper colour to a light ink, chosen by the prompt."""
    digest = hashlib.sha256(f"{prompt}{index}".encode()).digest()
    hue = digest[0] / 255
    paper = colorsys.hls_to_rgb(hue, 0.16 + digest[1] / 255 * 0.12, 0.55)
    ink = colorsys.hls_to_rgb((hue + 0.08) % 1, 0.93, 0.6)
    tones = range(256)
    return [
        round(255 * (p + (i - p) * t / 255)) for t in tones for p, i in zip(paper, ink, strict=True)
    ]
