"""The other programs that README shows: a view of Django, a Celery app, a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.support.command_line import a_simulator, environment, server_books

HERE = Path(__file__).parent

CUSTOMERS = """
from concurrent.futures import ThreadPoolExecutor
import django
from django.conf import settings
settings.configure(ROOT_URLCONF="tests.examples.django_view", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
django.setup()
from django.test import Client
def get(sku):
    answer = Client().get(f"/pictures/{sku}", {"prompt": "a mug"})
    return answer.status_code, answer["Content-Type"]
with ThreadPoolExecutor(8) as pool:
    print([*pool.map(get, ["杯-1"] * 4 + ["cup-2"] * 4)], get("杯-1"))
"""

pytestmark = pytest.mark.timeout(120)


def test_a_view_of_django_makes_a_picture_once(tmp_path: Path) -> None:
    """Many requests at once for one product, and for another; one more finds it there."""
    with a_simulator(tmp_path) as url:
        done = subprocess.run(
            [sys.executable, "-c", CUSTOMERS],
            env=environment(
                ATLASCLOUD_API_KEY="apikey-django",
                MEDIA_BASE_URL=url,
                MEDIA_FOLDER=str(tmp_path / "media"),
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(200, 'image/") == 9, done.stdout
    assert len(server_books(tmp_path)[0]) == 2


def test_a_notebook_opens_in_one_cell_and_closes_in_another(tmp_path: Path) -> None:
    """Run twice as a whole: the second time nothing is bought."""
    with a_simulator(tmp_path) as url:
        read: Any = nbformat.read
        for _ in range(2):
            notebook: Any = read(HERE / "notebook.ipynb", as_version=4)
            env = environment(ATLASCLOUD_API_KEY="apikey-notebook", MEDIA_BASE_URL=url)
            client = nbclient.NotebookClient(
                notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}
            )
            client.execute(env=env)
            told = "".join(
                output.get("text", "")
                for cell in notebook.cells
                for output in cell.get("outputs", ())
            )
            assert told.count("succeeded") == 4, told
            assert len(server_books(tmp_path)[0]) == 4
