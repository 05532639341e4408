"""The command line: parse, call the public API, print, exit."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command; the only place that turns errors into messages and exit codes."""
    _name_any_file()
    from asyncpipe.cli.app import run_command

    raise SystemExit(run_command())


def _name_any_file() -> None:
    """Begin anew in UTF-8 mode where the locale has no way to name a file 杯子.

    A run in such a locale ended as a bug of ours when it came to the first such name, its
    downloads unstored. What is printed stays in the terminal's own encoding.
    """
    unicode = sys.getfilesystemencoding().lower().startswith("utf")
    if unicode or os.name != "posix" or os.environ.get("PYTHONUTF8") == "1":
        return
    printed = os.environ.get("PYTHONIOENCODING") or sys.stdout.encoding
    mode = {"PYTHONUTF8": "1", "PYTHONIOENCODING": printed}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **mode})  # noqa: S606
