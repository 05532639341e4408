"""Media made on demand, in threads, with the last few kept."""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import math
import re
import wave
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

from asyncpipe.errors import UsageError
from asyncpipe.simulator.books import BookedPrediction
from asyncpipe.simulator.models import medium, seconds_asked

CACHE_BYTES = 8 * 1024 * 1024

_HEADS = {
    "image": b"\x89PNG\r\n\x1a\n",
    "video": b"\x00\x00\x00\x18ftypisom",
    "audio": b"RIFF\0\0\0\0WAVE",
    "model": b"glTF\x02\0\0\0",
}


_TAILS = {"image": b"\0\0\0\0IEND\xaeB`\x82", "video": b"\0\0\0\x08moov"}


def _body_of(kind: str, mark: bytes, size: int) -> bytes:
    """So many bytes that begin and end as a file of the kind does."""
    tail = _TAILS.get(kind, b"")
    body = (_HEADS[kind] + mark)[:size].ljust(size - len(tail), b"\0")[: size - len(tail)] + tail
    if kind == "video":  # one box up to the last
        body = (size - len(tail)).to_bytes(4, "big") + body[4:]
    if kind == "model":  # it says itself how long it is
        body = body[:8] + size.to_bytes(4, "little") + body[12:]
    return body[:size]


class MediaMaker:
    """Make the bytes of an output; the same prediction always gives the same bytes.

    ``body_bytes`` makes bodies of that size with the right first bytes instead of drawing.
    """

    def __init__(self, *, body_bytes: int | None) -> None:
        self._body_bytes = body_bytes
        self.thread = ThreadPoolExecutor(2, thread_name_prefix="asyncpipe-simulator")
        self._cache: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._cached = 0
        self._lock = Lock()

    def check(self) -> None:
        """Raise UsageError when the packages that draw are not installed."""
        missing = [name for name in ("PIL", "av") if find_spec(name) is None]
        if missing and self._body_bytes is None:
            raise UsageError(
                f"the simulator draws with packages that are missing ({', '.join(missing)}): "
                "pip install 'asyncpipe[simulator]'"
            )

    def close(self) -> None:
        """Let the threads go."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    def make(self, prediction: BookedPrediction, index: int) -> bytes:
        """Return the bytes of one output; runs in a thread."""
        if self._body_bytes is not None:
            mark = f"{prediction.id}-{index}".encode()  # no two outputs are the same
            kind = medium(prediction.type, prediction.model)
            return _body_of(kind, mark, self._body_bytes)
        output = (prediction.id, index)
        with self._lock:
            if output in self._cache:
                self._cache.move_to_end(output)
                return self._cache[output]
        body = self._draw(prediction, index)
        with self._lock:
            self._keep(output, body)
        return body

    def make_cover(self, prediction: BookedPrediction) -> bytes:
        """Return the bytes of the picture beside the outputs; runs in a thread."""
        if self._body_bytes is not None:
            return _body_of("image", f"{prediction.id}-cover".encode(), self._body_bytes)
        return draw_picture(_told(prediction), 0, 1)

    def _draw(self, prediction: BookedPrediction, index: int) -> bytes:
        kind = medium(prediction.type, prediction.model)
        if kind == "audio":
            return play(prediction.body, index)
        if kind == "model":
            return mould(prediction.body, index)
        draw = draw_picture if prediction.type == "image" else draw_clip
        return draw(_told(prediction), index, prediction.outputs)

    def _keep(self, output: tuple[str, int], body: bytes) -> None:
        if len(body) > CACHE_BYTES or output in self._cache:
            return
        self._cache[output] = body
        self._cached += len(body)
        while self._cached > CACHE_BYTES:
            _, old = self._cache.popitem(last=False)
            self._cached -= len(old)


def _told(prediction: BookedPrediction) -> dict[str, Any]:
    """A request with its model, which may stand in its path alone."""
    return {"model": prediction.model, **prediction.body}


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


RATE = 8000
"""Samples a second."""

NOTE_S = 0.25

_SCALE = (220.0, 246.9, 277.2, 329.6, 370.0, 440.0, 493.9, 554.4)  # five tones, no false friend

_FADE = RATE // 50

_LOUD = 9000


def mould(body: dict[str, Any], index: int) -> bytes:
    """A GLB that is nothing but a name of its own for each request and output."""
    said = f"{body.get('prompt') or body} {index}"
    scene = {"asset": {"version": "2.0"}, "scenes": [{"name": said}], "scene": 0}
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunk = len(text).to_bytes(4, "little") + b"JSON" + text
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunk)).to_bytes(4, "little") + chunk


def transcribes(body: dict[str, Any]) -> bool:
    """Whether a request wants the words of a recording: it has one, and nothing to speak."""
    heard = body.get("audio") or body.get("audio_url")
    return bool(heard) and not (body.get("prompt") or body.get("text"))


def transcript(body: dict[str, Any]) -> str:
    """What was heard; the output itself, not a URL of it."""
    return f"听到的内容: {body.get('audio') or body.get('audio_url')} says hello."


def play(body: dict[str, Any], index: int) -> bytes:
    """A WAV of the asked duration, with a tune of its own for each request and output."""
    said = str(body.get("prompt") or body.get("text") or body)
    tune = hashlib.sha256(f"{said}{index}".encode()).digest()
    samples, count = array("h"), round(seconds_asked(body) * RATE)
    note = round(NOTE_S * RATE)
    for n in range(math.ceil(count / note)):
        samples.extend(
            _note(_SCALE[tune[n % len(tune)] % len(_SCALE)], min(note, count - n * note))
        )
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def _note(pitch: float, length: int) -> array[int]:
    """One tone, faded in and out so that it does not click."""
    turn = 2 * math.pi * pitch / RATE
    return array(
        "h",
        (
            round(_LOUD * math.sin(turn * i) * min(1.0, i / _FADE, (length - i) / _FADE))
            for i in range(length)
        ),
    )
