"""Sounds that can be played, and the words of speech that was to be recognised."""

from __future__ import annotations

import hashlib
import io
import math
import wave
from array import array
from typing import Any

from asyncpipe.simulator.prices import seconds_asked

RATE = 8000
"""Samples a second."""

NOTE_S = 0.25

_SCALE = (220.0, 246.9, 277.2, 329.6, 370.0, 440.0, 493.9, 554.4)  # five tones, no false friend

_FADE = RATE // 50

_LOUD = 9000


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
