"""Folders of a template: which one a command works in, and what becomes of the others."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
import pytest

from asyncpipe.cli.schedule import DatedFolder, choose, collected, meant_by, named_folder, owing
from asyncpipe.errors import FolderInUse, LedgerError, UsageError
from asyncpipe.jobfile import FolderTemplate
from asyncpipe.jobs import JobState, OutputPlace
from asyncpipe.ledger import Holder
from asyncpipe.report import Status
from tests.support.command_line import asyncpipe, job_lines, write_jobs
from tests.support.schedules import RUN, a_week_older, scheduled, sold, today

AT = datetime(2026, 11, 30, 6, tzinfo=UTC)
WEEKLY = FolderTemplate.of("weekly/{date}")
JOBS = Path("/srv/weekly.yaml")
S = JobState


def status(folder: Path, jobs: dict[JobState, int], **said: Any) -> Status:
    fixed: dict[str, Any] = {
        "simulated": False,
        "provider": "test",
        "job_file": str(JOBS),
        "holder": None,
        "workers": (),
        "removed": 0,
        "failed_charged": 0,
        "in_doubt": 0,
        "lost_answers": 0,
        "overruns": 0,
        "models": {},
        "failures_returned": 0,
        "refusals": 0,
        "left_s": None,
    }
    return Status(folder=folder, at=AT, jobs=Counter(jobs), **{**fixed, **said})


def found(day: str, **said: Any) -> DatedFolder:
    """A folder of 2026-11-``day`` whose last run left jobs in the states that ``said`` has."""
    folder = Path(f"weekly/2026-11-{day}")
    moment = WEEKLY.moment(folder)
    assert moment is not None
    if trouble := said.pop("trouble", None):
        return DatedFolder(moment=moment, folder=folder, trouble=LedgerError(trouble))
    jobs = {state: said.pop(state.value) for state in S if state.value in said}
    return DatedFolder(moment=moment, folder=folder, status=status(folder, jobs, **said))


def chosen(*folders: DatedFolder, **said: Any) -> str:
    options: dict[str, Any] = {"job_file": JOBS, "simulated": False, "new": False}
    there = {each.folder for each in folders}
    options |= {"taken": there.__contains__, **said}
    place = choose(WEEKLY, AT, folders, **options)
    assert isinstance(place, Path)
    return place.name


HELD = Holder(who="process 1 on here", since=AT)
OTHERS: dict[str, Any] = {"job_file": "/srv/other.yaml"}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ([], "2026-11-30"),
        ([found("23", succeeded=3, failed=2, unknown=1, lost=1, missing=1)], "2026-11-30"),
        ([found("23", cancelled=3)], "2026-11-30"),
        *(([found("23", **{state: 1})], "2026-11-23") for state in ("pending", "submitting")),
        *(([found("23", **{state: 1})], "2026-11-23") for state in ("submitted", "generated")),
        ([found("23", expired=1)], "2026-11-23"),
        ([found("23", succeeded=1), found("16", pending=1)], "2026-11-30"),  # only the newest
        ([found("30", succeeded=1)], "2026-11-30"),
        ([found("30_2", succeeded=1), found("30", succeeded=1)], "2026-11-30_2"),
        # Another job file's are its own affair, but for a folder of the same moment.
        ([found("23", pending=1, **OTHERS)], "2026-11-30"),
        ([found("23", succeeded=1, **OTHERS), found("16", pending=1)], "2026-11-16"),
        ([found("30", pending=1, **OTHERS)], "2026-11-30"),
        # Money and play do not mix.
        ([found("23", pending=1, simulated=True)], "2026-11-30"),
        ([found("30", succeeded=1, simulated=True)], "2026-11-30_2"),
    ],
)
def test_which_folder_a_run_works_in(folders: list[DatedFolder], expected: str) -> None:
    assert chosen(*folders) == expected


def test_a_job_file_is_known_by_its_path_and_when_it_was_moved(tmp_path: Path) -> None:
    """A project that is moved goes on; a namesake elsewhere is another job file."""
    here, there = tmp_path / "here" / "jobs.yaml", tmp_path / "there" / "jobs.yaml"
    for path in (here, there):
        path.parent.mkdir()
    here.write_text("", encoding="utf-8")
    unended = found("23", pending=1, job_file=str(here))
    assert chosen(unended, job_file=here) == "2026-11-23"
    link = tmp_path / "link.yaml"
    link.symlink_to(here)
    assert chosen(unended, job_file=link) == "2026-11-23"
    there.write_text("", encoding="utf-8")
    assert chosen(unended, job_file=there) == "2026-11-30"
    here.unlink()
    assert chosen(unended, job_file=there) == "2026-11-23"
    assert chosen(unended, job_file=tmp_path / "other.yaml") == "2026-11-30"


def test_new_opens_another_whatever_is_there() -> None:
    """Also one of the same moment, also beside a run and a ledger that cannot be read."""
    assert chosen(found("23", pending=1), new=True) == "2026-11-30"
    assert chosen(found("30", pending=1, holder=HELD), new=True) == "2026-11-30_2"
    damaged = found("30_2", trouble="damaged")
    assert chosen(damaged, found("30", succeeded=1), new=True) == "2026-11-30_3"


def test_a_run_under_way_is_not_joined_and_not_begun_twice() -> None:
    """Whatever its jobs are at the moment; one that just began has not told its job file."""
    for each in (
        found("23", succeeded=9, holder=HELD),
        found("23", pending=9, holder=HELD),
        found("23", holder=HELD, job_file=None),
    ):
        with pytest.raises(FolderInUse, match=r"11-23 is in use by process 1 on here.*--new"):
            chosen(each)
    assert chosen(found("23", pending=1, holder=HELD, **OTHERS)) == "2026-11-30"


def test_a_newest_folder_that_cannot_be_read_stops_the_run() -> None:
    """It may hold an interrupted run, whose jobs would be bought once more elsewhere."""
    with pytest.raises(LedgerError, match=r"damaged .*--new opens another folder"):
        chosen(found("23", trouble="damaged"), found("16", succeeded=1))
    assert chosen(found("23", succeeded=1), found("16", trouble="damaged")) == "2026-11-30"


def test_what_others_owe() -> None:
    """Paid, or perhaps, and not here; not what is not submitted, nor what a run fetches now."""
    owed = [
        found("22", submitted=1),
        found("21", generated=1, **OTHERS),  # of a job file that is no more
        found("20", expired=1),
        found("19", unknown=1),
    ]
    not_owed = [
        found("23", submitted=1),  # where the run works
        found("18", pending=5, failed=5, lost=5, succeeded=5),
        found("17", unknown=1, holder=HELD),
        found("16", unknown=1, simulated=True),
        found("15", unknown=1, job_file=__file__),
        found("14", trouble="damaged"),
    ]
    folder = not_owed[0].folder
    both = [not_owed[0], *owed, *not_owed[1:]]
    assert owing(both, folder, job_file=JOBS, simulated=False) == owed
    ours = owing(both, folder, job_file=Path(__file__), simulated=False)
    assert not_owed[4] in ours


def test_an_interruption_while_others_are_collected_ends_the_command(tmp_path: Path) -> None:
    """What goes wrong in one of them is said, and ends nothing."""
    each = found("23", unknown=1)

    def fails(folder: OutputPlace) -> int:
        raise LedgerError("it is damaged")

    with pytest.raises(click.exceptions.Exit) as caught:
        collected(each, lambda folder: 143, print)
    assert caught.value.exit_code == 143
    collected(each, fails, print)


def test_a_folder_of_before_placeholders_is_meant_as_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is no placeholder"):
        meant_by(Path("of{me}"))
    assert meant_by(Path("{{date}}")) == Path("{date}")
    for name in ("of{me}", "{{date}}"):
        Path(name).mkdir()
        assert meant_by(Path(name)) == Path(name)
    assert meant_by(Path("plain")) == Path("plain")
    with pytest.raises(UsageError, match=r"no folder of \{date\} yet"):
        named_folder(Path("{date}"), print)


# -- commands --------------------------------------------------------------------------------------


def test_every_command_finds_the_newest_folder_and_says_so(tmp_path: Path) -> None:
    """By the template and by the job file; data on stdout is not disturbed."""
    scheduled(tmp_path)
    done = asyncpipe(*RUN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    newest = tmp_path / "weekly" / today()
    assert f"weekly/{today()} is a new folder of weekly/{{date}}" in done.stderr
    shutil.copytree(a_week_older(newest), newest)
    again = asyncpipe(*RUN, cwd=tmp_path)
    assert f"weekly/{today()} is the newest folder of weekly/{{date}}" in again.stderr
    assert sold(newest) == 3
    template, file = "weekly/{date}", "jobs.yaml"
    for words in (
        ("status", template, "--json"),
        ("status", file, "--json"),
        ("collect", template),
        ("verify", file),
        ("export", template, "--format", "csv"),
        ("reconcile", file, "--json"),
        ("resolve", template, "--find"),
    ):
        done = asyncpipe(*words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        lines = done.stderr.splitlines()
        assert f"weekly/{today()} is the newest folder of weekly/{{date}}" in lines, words
        assert "is the newest" not in done.stdout, words
        if words[0] == "status":  # from wherever it was called, it is that file
            assert json.loads(done.stdout)["job_file"] == str(tmp_path / "jobs.yaml")
    assert asyncpipe("verify", "jobs.yaml", "-q", cwd=tmp_path).stderr == ""


def test_a_job_file_with_one_folder_stands_for_it(tmp_path: Path) -> None:
    write_jobs(tmp_path / "jobs.yaml", job_lines(2))
    assert asyncpipe(*RUN, cwd=tmp_path).returncode == 0
    done = asyncpipe("status", "jobs.yaml", cwd=tmp_path)
    assert (done.returncode, "out is the folder of jobs.yaml" in done.stderr) == (0, True)
    assert named_folder(tmp_path / "out" / "manifest.json", print) == tmp_path / "out"
    done = asyncpipe(*RUN, "--new", cwd=tmp_path)
    assert (done.returncode, "write out/{date}" in done.stderr) == (2, True)


def test_days_are_those_of_tz(tmp_path: Path) -> None:
    """The line islands are a day ahead of Baker Island, whatever the hour."""
    scheduled(tmp_path, 1)
    for name in ("Etc/GMT-14", "Etc/GMT+12"):
        before = datetime.now(ZoneInfo(name)).date().isoformat()
        done = asyncpipe(*RUN, "-o", f"{name[-3]}/{{date}}", cwd=tmp_path, TZ=name)
        assert done.returncode == 0, done.stderr
        days = {before, datetime.now(ZoneInfo(name)).date().isoformat()}
        (only,) = (tmp_path / name[-3]).glob("2*")
        assert only.name in days
    done = asyncpipe(*RUN, cwd=tmp_path, TZ="Mars/Olympus")
    assert (done.returncode, "TZ=Mars/Olympus is no time zone" in done.stderr) == (2, True)


def test_an_unknown_placeholder_stops_every_command(tmp_path: Path) -> None:
    """Before anything is made or bought."""
    scheduled(tmp_path, template="weekly/{day}")
    said = "{day} in 'weekly/{day}' is no placeholder: {date}, {week} and {time} are known"
    for words in (RUN, ("validate", "jobs.yaml"), ("status", "jobs.yaml")):
        done = asyncpipe(*words, cwd=tmp_path)
        assert (done.returncode, f"jobs.yaml:1: output_dir: {said}" in done.stderr) == (2, True)
    scheduled(tmp_path)
    for line in ((*RUN, "-o", "weekly/{day}"), ("status", "weekly/{day}")):
        done = asyncpipe(*line, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (2, True)
    assert not (tmp_path / "weekly").exists()


def test_what_is_asked_for_again_in_a_new_folder_is_said_to_be_elsewhere(tmp_path: Path) -> None:
    """Whoever retries next week what failed would buy a new week, and wonder."""
    scheduled(tmp_path)
    moderated = (*RUN, "--simulate-faults", "moderated=1")
    assert asyncpipe(*moderated, cwd=tmp_path).returncode == 1
    older = a_week_older(tmp_path / "weekly" / today())
    done = asyncpipe(*RUN, "--retry-failed", cwd=tmp_path)
    told = f"3 failed jobs of weekly/{older.name} are not submitted again: that takes --output-dir"
    assert (done.returncode, f"{told} weekly/{older.name}" in done.stderr) == (0, True)
