"""Which keys came before, in 8 bytes each."""

from __future__ import annotations

_FEWEST = 1 << 10


class Seen:
    """A set of keys that keeps 64 bits of each: 16 to 32 bytes a key, a million in 16 MiB.

    ``add`` may take a key for another one (once in 10^7 times a million keys): whoever is told so
    looks again.
    """

    def __init__(self) -> None:
        self._count = 0
        self._make(_FEWEST)

    def _make(self, size: int) -> None:
        self._mask = size - 1
        self._slots = memoryview(bytearray(8 * size)).cast("Q")

    def add(self, key: str) -> bool:
        """Take a key of hexadecimal digits; whether it, or its like, was here before."""
        value = int(key[:16], 16) or 1
        slots, at = self._slots, value & self._mask
        while (there := slots[at]) != 0:
            if there == value:
                return True
            at = (at + 1) & self._mask
        slots[at] = value
        self._count += 1
        if self._count * 3 > len(slots) * 2:
            self._grow()
        return False

    def _grow(self) -> None:
        old = self._slots
        self._make(2 * len(old))
        slots, mask = self._slots, self._mask
        for value in old:
            if value:
                at = value & mask
                while slots[at]:
                    at = (at + 1) & mask
                slots[at] = value
