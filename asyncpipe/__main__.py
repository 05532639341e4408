"""``python -m asyncpipe``."""

from __future__ import annotations

from asyncpipe.cli import main

if __name__ == "__main__":
    main()
