"""Media made on demand, in threads, with the last few kept."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Lock

from asyncpipe.errors import UsageError
from asyncpipe.simulator.books import BookedPrediction

CACHE_BYTES = 8 * 1024 * 1024

_HEADS = {
    "image": b"\x89PNG\r\n\x1a\n",
    "video": b"\x00\x00\x00\x18ftypisom",
    "audio": b"RIFF\0\0\0\0WAVE",
}


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
            body = (_HEADS[prediction.type] + mark)[: self._body_bytes]
            return body.ljust(self._body_bytes, b"\0")
        output = (prediction.id, index)
        with self._lock:
            if output in self._cache:
                self._cache.move_to_end(output)
                return self._cache[output]
        body = self._draw(prediction, index)
        with self._lock:
            self._keep(output, body)
        return body

    def _draw(self, prediction: BookedPrediction, index: int) -> bytes:
        if prediction.type == "audio":
            from asyncpipe.simulator.sound import play

            return play(prediction.body, index)
        from asyncpipe.simulator.draw import draw_clip, draw_picture

        draw = draw_picture if prediction.type == "image" else draw_clip
        return draw(prediction.body, index, prediction.outputs)

    def _keep(self, output: tuple[str, int], body: bytes) -> None:
        if len(body) > CACHE_BYTES or output in self._cache:
            return
        self._cache[output] = body
        self._cached += len(body)
        while self._cached > CACHE_BYTES:
            _, old = self._cache.popitem(last=False)
            self._cached -= len(old)
