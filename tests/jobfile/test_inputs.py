"""Local files in job files: on the job, by column, relative to where they are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncpipe import JobFileError, load_jobs
from tests.support.photos import FLUX, photo


def test_a_job_file_takes_media_on_the_job_and_needs_no_prompt_for_tools(tmp_path: Path) -> None:
    """``defaults.image`` stays what jobs of that type take."""
    photo(tmp_path, "a.png")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "defaults: {image: {model: acme/upscale}}\n"
        "jobs:\n  - {type: image, image: a.png}\n"
        "  - {type: image, image: 5, prompt: x}\n"
        "  - {type: image, image: a.png, params: {image: a.png}}\n",
        encoding="utf-8",
    )
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert [(p.line, p.message[:24]) for p in caught.value.problems] == [
        (4, "image: 5 is a number: pu"),
        (5, "params.image: image stan"),
    ]
    path.write_text(path.read_text(encoding="utf-8").split("  - {type: image, image: 5")[0])
    (only,) = load_jobs(path).jobs
    assert only.body == {"model": "acme/upscale", "image": "a.png"}
    assert set(only.inputs) == {"a.png"}


def test_a_template_names_photos_by_column_and_wrong_ones_by_row(tmp_path: Path) -> None:
    """``photos/{sku}.png``, lists too; five hundred rows read twice look at each file once."""
    for sku in ("a1", "b2"):
        photo(tmp_path, f"photos/{sku}.png")
    photo(tmp_path, "logo.png")
    (tmp_path / "skus.csv").write_text("sku,file\na1,logo.png\nb2,logo.png\n", encoding="utf-8")
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "rows: skus.csv\n"
        "jobs:\n"
        f"  - {{name: 'x {{sku}}', model: {FLUX}, prompt: p, image: 'photos/{{sku}}.png'}}\n"
        "  - {name: 'u {sku}', type: image, model: acme/upscale, image: '{file}'}\n"
        f"  - {{name: 'l {{sku}}', model: {FLUX}, prompt: q, count: 2,\n"
        "     images: ['photos/{sku}.png', logo.png, 'https://x/{sku}.png']}\n",
        encoding="utf-8",
    )
    jobs = list(load_jobs(path).jobs)
    assert [sorted(each.inputs) for each in jobs[:3]] == [
        ["photos/a1.png"],
        ["logo.png"],
        ["logo.png", "photos/a1.png"],
    ]
    assert jobs[1].body == {"model": "acme/upscale", "image": "logo.png"}
    assert jobs[7].params["images"] == ["photos/b2.png", "logo.png", "https://x/b2.png"]
    (tmp_path / "photos" / "b2.png").unlink()
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert [(p.line, p.job, p.message[:32]) for p in caught.value.problems] == [
        (3, "sku b2", "image: 'photos/b2.png': there is"),
        (3, "sku b2", "images[0]: 'photos/b2.png': ther"),
    ]
    text = path.read_text(encoding="utf-8").replace("prompt: p", "prompt: 'p {shot}'")
    path.write_text("matrix: {shot: [1, 2, 3]}\n" + text, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    files = [p for p in caught.value.problems if "there is no file" in p.message]
    assert len(files) == 2, "a row is told once, however many jobs it makes"


def test_a_table_of_jobs_and_json_lines_take_files_too(tmp_path: Path) -> None:
    """Relative to the table; a wrong one has its line."""
    photo(tmp_path, "a.png")
    table = tmp_path / "jobs.csv"
    table.write_text(f"model,prompt,image\n{FLUX},p,a.png\n{FLUX},q,b.png\n", encoding="utf-8")
    with pytest.raises(JobFileError, match=r"jobs\.csv:3: .*image: 'b\.png': there is no file"):
        load_jobs(table)
    photo(tmp_path, "b.png")
    assert [sorted(each.inputs) for each in load_jobs(table).jobs] == [["a.png"], ["b.png"]]
    lines = tmp_path / "jobs.jsonl"
    row = {"model": FLUX, "prompt": "p", "params": {"image_url": "a.png"}}
    lines.write_text(json.dumps(row), encoding="utf-8")
    assert [sorted(each.inputs) for each in load_jobs(lines).jobs] == [["a.png"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('jobs: [{image: "C:\\Users\\me\\p.jpg"}]', "a backslash in double quotes begins"),
        ('jobs: [{image: "C:\\photos\\p.jpg"}]', "a backslash in double quotes begins"),
        ('jobs: [{image: "C:\\x\\p.jpg"}]', "a backslash in double quotes begins"),
        (f'jobs: [{{model: {FLUX}, prompt: x, image: "C:\\new\\test.jpg"}}]', "with /"),
        (
            f'jobs: [{{model: {FLUX}, prompt: x, image: "oss://b/a.jpg"}}]',
            "'oss://b/a.jpg' is no ad",
        ),
        (f'output_dir: "C:\\new"\njobs: [{{model: {FLUX}, prompt: x}}]', "output_dir: 'C:\\new' h"),
        ('rows: "C:\\temp\\rows.csv"\njobs: [{prompt: "{a}"}]', "use /"),
    ],
)
def test_paths_with_backslashes_are_told_about_them(
    tmp_path: Path, content: str, said: str
) -> None:
    """Whether the file cannot be read, or says something else than it seems to."""
    path = tmp_path / "jobs.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(JobFileError) as caught:
        load_jobs(path)
    assert said in str(caught.value)
