"""Placeholders in an output folder's name: moments become folders, and folders moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncpipe import Pipeline
from asyncpipe.errors import UsageError
from asyncpipe.jobfile.folders import FolderTemplate, zone_of
from asyncpipe.jobs import place_of
from asyncpipe.testing import FakeProvider
from tests.support.job_files import ROW, load, problems

BERLIN, SHANGHAI = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Shanghai")


def folder(text: str, at: datetime, another: int = 1) -> str:
    place = FolderTemplate.of(text).folder(at, another)
    return place.as_posix() if isinstance(place, Path) else str(place)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("weekly/{date}", utc(2026, 11, 28, 6), "weekly/2026-11-28"),
        ("weekly/{ date }/out", utc(2026, 11, 28), "weekly/2026-11-28/out"),
        ("{week}", utc(2026, 11, 28), "2026-W48"),
        ("{week}", utc(2027, 1, 1), "2026-W53"),  # a Friday: still of the year before
        ("{week}", utc(2024, 12, 30), "2025-W01"),  # a Monday: of the year to come
        ("{week}", utc(2023, 1, 1), "2022-W52"),
        ("{time}", utc(2026, 11, 28, 6, 5, 4), "2026-11-28T06-05-04Z"),
        ("{time}", datetime(2026, 7, 1, 6, tzinfo=BERLIN), "2026-07-01T06-00-00+0200"),
        ("a{{b}}/{date}", utc(2026, 11, 28), "a{b}/2026-11-28"),
        ("plain{{x}}", utc(2026, 11, 28), "plain{x}"),
        ("{week}/{date}", utc(2026, 11, 28), "2026-W48/2026-11-28"),
        ("./weekly//{date}/", utc(2026, 11, 28), "weekly/2026-11-28"),
        ("s3://media/weekly/{date}", utc(2026, 11, 28), "s3://media/weekly/2026-11-28"),
        ("gs://media/{week}/", utc(2026, 11, 28), "gs://media/2026-W48"),
        ("/srv/out/100%-{date}", utc(2026, 11, 28), "/srv/out/100%-2026-11-28"),
    ],
)
def test_a_moment_names_a_folder(text: str, at: datetime, expected: str) -> None:
    assert folder(text, at) == expected


def test_the_day_is_that_of_the_zone() -> None:
    """Monday in Shanghai is Sunday in UTC; weeks, too."""
    at = utc(2026, 11, 29, 22)
    assert folder("{week}/{date}", at) == "2026-W48/2026-11-29"
    assert folder("{week}/{date}", at.astimezone(SHANGHAI)) == "2026-W49/2026-11-30"


def test_the_hour_that_autumn_repeats_is_two_hours() -> None:
    """In local time the later run would look older; its name says the offset."""
    template = FolderTemplate.of("{time}")
    early, late = utc(2026, 10, 25, 0, 45), utc(2026, 10, 25, 1, 15)
    folders = [template.folder(at.astimezone(BERLIN)) for at in (early, late)]
    assert [str(each) for each in folders] == [
        "2026-10-25T02-45-00+0200",
        "2026-10-25T02-15-00+0100",
    ]
    moments = [template.moment(each) for each in folders]
    assert [each and each[0] for each in moments] == [early, late]


@settings(deadline=None)
@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001
    st.sampled_from([UTC, BERLIN, SHANGHAI]),
    st.sampled_from(
        ["w/{date}", "{week}", "{time}", "a-{week}/{date}_x/{time}", "{date}-{date}/y"]
    ),
    st.integers(1, 12),
)
def test_a_name_says_its_moment(naive: datetime, zone: ZoneInfo, text: str, another: int) -> None:
    """What is written is read again, and names the same folder."""
    template = FolderTemplate.of(text)
    at = naive.replace(tzinfo=UTC).astimezone(zone)
    named = template.folder(at, another)
    moment = template.moment(named)
    assert moment is not None
    assert moment[1] == another
    assert template.folder(moment[0], another) == named
    if "{time}" in text:
        assert moment[0] == naive.replace(microsecond=0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("w/{date}", "w/2026-02-30"),
        ("w/{date}", "w/2026-2-3"),
        ("w/{date}", "w/2026-11-28_1"),
        ("w/{date}", "w/2026-11-28_02"),
        ("w/{date}", "w/2026-11-28-old"),
        ("w/{date}", "v/2026-11-28"),
        ("w/{date}", "w/2026-11-28/x"),
        ("w/{date}", "w/２０２６-11-28"),
        ("{week}", "2026-W54"),
        ("{week}", "2025-W53"),
        ("{time}", "2026-11-28T06-00-00"),
        ("{time}", "2026-11-28T06-00-00+0000"),
        ("{week}/{date}", "2026-W47/2026-11-28"),
        ("{date}-{date}", "2026-11-28-2026-11-29"),
        ("plain", "plain"),
        ("s3://media/{date}", "s3://others/2026-11-28"),
        ("s3://media/{date}", "gs://media/2026-11-28"),
        ("s3://media/{date}", "s3://media/w/2026-11-28"),
        ("s3://media/{date}", "2026-11-28"),
        ("{date}", "s3://media/2026-11-28"),
    ],
)
def test_other_names_are_of_no_moment(text: str, name: str) -> None:
    assert FolderTemplate.of(text).moment(place_of(name)) is None


def test_folders_are_found_and_in_order(tmp_path: Path) -> None:
    """By the moment that they name, not by name or age; others are not looked at."""
    names = ["2025-W52", "2026-W01", "2026-W01_2", "2026-W01_10", "2026-W9", "notes"]
    for name in names:
        (tmp_path / name / "out").mkdir(parents=True)
    (tmp_path / "2026-W02").write_text("a file", encoding="utf-8")
    template = FolderTemplate.of(f"{tmp_path}/{{week}}")
    moments = {path.name: template.moment(path) for path in template.found()}
    found = sorted(moments, key=lambda name: moments[name] or (utc(1, 1, 1), 0), reverse=True)
    assert found == ["2026-W02", "2026-W01_10", "2026-W01_2", "2026-W01", "2025-W52"]
    assert template.root == tmp_path
    inner = FolderTemplate.of(f"{tmp_path}/{{week}}/out")
    assert sorted(path.parent.name for path in inner.found()) == ["2025-W52", "2026-W01"]
    assert FolderTemplate.of(f"{tmp_path}/none/{{date}}").found() == []


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ("weekly/{day}", "{day} in 'weekly/{day}' is no placeholder"),
        ("weekly/{sku}-{date}", "{sku} in"),
        ("weekly/{}", "{} in"),
        ("weekly/{date", "{ in 'weekly/{date' is a lone brace"),
        ("weekly/date}", "} in"),
    ],
)
def test_a_brace_that_is_no_placeholder_is_told(tmp_path: Path, said: str, where: str) -> None:
    """With file, line, value and the three that are known; nothing else in it is."""
    (only,) = problems(tmp_path, f"max_workers: 3\noutput_dir: '{said}'\njobs: [{ROW}]")
    assert "jobs.yaml:2: output_dir: " in only
    assert where in only
    assert "{date}, {week} and {time} are known" in only


@pytest.mark.parametrize("said", ["s3://{week}/x", "s3://m/{date}", "s3://media/a{{b}}/{date}"])
def test_a_bucket_takes_placeholders_behind_its_name_only(tmp_path: Path, said: str) -> None:
    """And no signs that it does not take anyway."""
    (only,) = problems(tmp_path, f"output_dir: '{said}'\njobs: [{ROW}]")
    assert "jobs.yaml:1: output_dir: " in only


def test_full_width_braces_are_told(tmp_path: Path) -> None:
    text = f"output_dir: w/｛date｝\njobs: [{ROW}]"
    (only,) = problems(tmp_path, text)
    assert "full-width braces: write {date}" in only


def test_a_job_file_says_a_template_or_a_folder(tmp_path: Path) -> None:
    """Its own rows have columns of the same names, which have nothing to do with it."""
    text = "output_dir: '{}'\nmatrix: {{date: [x]}}\njobs: [{}]"
    row = ROW.replace("prompt: p", "prompt: 'on {date}'")
    said = load(tmp_path, text.format("w/{date}", row)).settings
    assert str(said.template) == "w/{date}"
    plain = load(tmp_path, text.format("w/{{date}}", row)).settings
    assert (plain.template, plain.output_dir) == (None, Path("w/{date}"))


def test_tz_names_a_zone(tmp_path: Path) -> None:
    """Nothing is UTC; what is not known is an error, not UTC."""
    summer = datetime(2026, 7, 1)  # noqa: DTZ001
    assert zone_of("") is zone_of("UTC") is UTC
    for name in ("Europe/Berlin", ":Europe/Berlin"):
        assert zone_of(name).utcoffset(summer) == timedelta(hours=2)
    for name in ("Middle/Earth", "../x", "CST-8", str(tmp_path / "none"), "a\0b"):
        with pytest.raises(UsageError, match=r"no time zone .* write one like Europe/Berlin"):
            zone_of(name)


def test_a_pipeline_takes_no_template_for_a_folder(tmp_path: Path) -> None:
    """A script would work in one of that very name, week after week, and find all of it done."""
    for name in ("weekly/{date}", tmp_path / "{ week }"):
        with pytest.raises(UsageError, match=r"names no folder yet.*template\.folder"):
            Pipeline(FakeProvider(), name)
    Pipeline(FakeProvider(), tmp_path / "a{b}")
