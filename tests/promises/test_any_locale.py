"""Names of files where the locale is not UTF-8: nothing that is bought is left without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio, sys
from asyncpipe import Job, Pipeline
from asyncpipe.engine import verify
from asyncpipe.testing import FakeProvider, PIXEL, Script, run_virtual

def job(name):
    model = "black-forest-labs/flux-2-pro/text-to-image"
    return Job(name=name, model=model, prompt="p")

names = [ascii_name.encode().decode("unicode_escape") for ascii_name in sys.argv[2:]]
provider = FakeProvider(default=Script(outputs=(PIXEL, PIXEL)))

async def main():
    async with Pipeline(provider, sys.argv[1], storage={"min_free_bytes": 0}) as pipeline:
        manifest = await pipeline.batch_generate([job(name) for name in names])
        for result in manifest:
            print(ascii(result.name), result.status, *[ascii(a.path) for a in result.assets])
        print("stopped:", ascii(str(pipeline.stopped)), "sold:", len(provider.sold))

run_virtual(main())
"""

CUP, TEA = "\\u676f\\u5b50", "\\u8336"


def run(folder: Path, *names: str, utf8: bool) -> str:
    """A library's process in the C locale; with ``utf8`` its file names are UTF-8 all the same."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONUTF8"] = "1" if utf8 else "0"
    command = [sys.executable, "-c", SCRIPT, str(folder), *names]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_names_that_cannot_be_files_are_made_of_the_key(tmp_path: Path) -> None:
    """Chinese ones in the C locale; those that can be stay as they are."""
    said = run(tmp_path, CUP, "a mug", TEA, utf8=False)
    assert said.count("success") == 3, said
    found = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert found[:2] == ["a_mug_1.png", "a_mug_2.png"]
    assert [name[:6] for name in found[2:]] == ["image-"] * 4


def test_files_of_another_locale_stop_a_run_with_a_word(tmp_path: Path) -> None:
    """They cannot be looked at; the next run in UTF-8 finds all as it was, and buys nothing."""
    assert "success" in run(tmp_path, CUP, utf8=True)
    said = run(tmp_path, CUP, utf8=False)
    assert "PYTHONUTF8=1" in said, said
    again = run(tmp_path, CUP, utf8=True)
    assert "success" in again, again
    assert "sold: 0" in again, again
