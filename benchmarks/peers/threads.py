"""The article's design in our own words: blocking requests in a pool of threads.

One session for the API, none for downloads, whole bodies in memory, a manifest at the end. Where
the article asks for ``/prediction/ID/get``, this asks on the documented path; its waits do not
matter here, since generation takes no time.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from benchmarks.peers.idiomatic import BODY


@dataclass
class Made:
    """One picture."""

    name: str
    output_url: str
    local_path: str
    seconds: float


class ThreadedPipeline:
    """Submit, poll, download; one thread per job in flight."""

    def __init__(self, base_url: str, folder: Path) -> None:
        self.base_url, self.folder = base_url, folder
        self.session = requests.Session()
        self.session.headers.update(
            {"Authorization": "Bearer k", "Content-Type": "application/json"}
        )

    def submit(self, prompt: str) -> str:
        """Buy one prediction."""
        url = f"{self.base_url}/model/generateImage"
        response = self.session.post(url, json={**BODY, "prompt": prompt})
        response.raise_for_status()
        return str(response.json()["data"]["id"])

    def wait_for(self, prediction: str) -> str:
        """Poll at once, then after 5 s, 7.5 s … up to 30 s."""
        pause_s = 5.0
        while True:
            response = self.session.get(f"{self.base_url}/model/prediction/{prediction}")
            found = response.json()["data"]
            if found["status"] == "completed":
                return str(found["outputs"][0])
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, 30.0)

    def picture(self, number: int) -> Made:
        """Make one picture from prompt to file."""
        started = time.monotonic()
        url = self.wait_for(self.submit(f"a mug {number}"))
        response = requests.get(url, timeout=60)
        response.raise_for_status()
        path = self.folder / f"{number}.png"
        path.write_bytes(response.content)
        return Made(str(number), url, str(path), time.monotonic() - started)


def run(base_url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """Make ``jobs`` pictures in ``in_flight`` threads."""
    folder.mkdir(parents=True)
    pipeline = ThreadedPipeline(base_url, folder)
    with ThreadPoolExecutor(in_flight) as pool:
        futures = [pool.submit(pipeline.picture, number) for number in range(jobs)]
        made = [asdict(future.result()) for future in as_completed(futures)]
    (folder / "manifest.json").write_text(json.dumps({"results": made}, indent=2))
