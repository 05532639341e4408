"""Disk space kept back, so that a full disk does not keep us from recording what was bought."""

from __future__ import annotations

import os
from pathlib import Path

BALLAST_BYTES = 4 * 1024 * 1024
"""Room for the answers of some hundred submits that are out when the disk runs full."""


class Ballast:
    """A file of no use but its size; released when the ledger finds the disk full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spent = False

    def hold(self) -> None:
        """Make the file where there is room for it; without, there is nothing to release."""
        try:
            if self._path.exists() and self._path.stat().st_size == BALLAST_BYTES:
                return
            with self._path.open("wb") as file:
                file.write(os.urandom(BALLAST_BYTES))  # zeros take no room on some file systems
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._path.unlink(missing_ok=True)

    def release(self) -> bool:
        """Delete the file; False if there was none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        self.spent = True
        return True
