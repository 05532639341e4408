"""A run of the command line, killed again and again, against a simulator that lives on."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.command_line import command, environment, manifest


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A simulator that was started, and the command that runs against it; ``key`` is a variable."""

    home: Path
    url: str
    options: tuple[object, ...] = ()
    key: str = "ATLASCLOUD_API_KEY"

    @property
    def arguments(self) -> tuple[object, ...]:
        return (
            *("run", "jobs.yaml", "-o", "out", "--base-url", self.url, "--allow-unknown-models"),
            *("--search-s", 2, "--yes", "--min-free", 0, *self.options),
        )

    @property
    def environment(self) -> dict[str, str]:
        return environment(**{self.key: "apikey-chaos"})

    def kill_after(self, seconds: float) -> None:
        process = subprocess.Popen(
            command(*self.arguments, "--quiet"),
            cwd=self.home,
            env=self.environment,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    def run(self) -> dict[str, Any]:
        done = subprocess.run(
            command(*self.arguments),
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            timeout=900,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 75), done.stdout + done.stderr
        return manifest(self.home / "out")

    def run_to_the_end(self) -> dict[str, Any]:
        """Run until nothing is pending, and once more: what is listed late is found, too."""
        while self.run()["pending"]:
            pass
        return self.run()
