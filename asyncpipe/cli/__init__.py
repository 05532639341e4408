"""The command line: parse, call the public API, print, exit."""

from __future__ import annotations


def main() -> None:
    """Run the command; the only place that turns errors into messages and exit codes."""
    from asyncpipe.cli.app import run_command

    raise SystemExit(run_command())
