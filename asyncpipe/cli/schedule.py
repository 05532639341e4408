"""Which folder of a template a command works in, and what the others still owe."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from asyncpipe._text import printable
from asyncpipe.cli.session import Exit, Output, echo
from asyncpipe.errors import AsyncpipeError, LedgerError, UsageError
from asyncpipe.jobfile import FolderTemplate, JobFile, Moment, open_jobs, zone_of
from asyncpipe.jobs import PAID_OPEN, BucketUrl, JobState, OutputPlace, place_of
from asyncpipe.ledger import (
    ELSEWHERE,
    STATE_FOLDER,
    SharedPlace,
    choosing_lock,
    has_record,
    holder,
    in_use,
    make_folders,
    place_names,
    reading,
    where_of,
)
from asyncpipe.report import MANIFEST_NAME, Status, read_status

NEW = "or open another one with --new"

SHOWN = 5
"""Folders whose ledgers cannot be read that are named; the others are counted."""

OWED = (*PAID_OPEN, JobState.UNKNOWN)
"""States of jobs that are paid for, or may be, and have no file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatedFolder:
    """A folder of a template; without ``status`` its ledger cannot be read, as ``trouble`` says."""

    moment: Moment
    folder: OutputPlace
    status: Status | None = None
    trouble: AsyncpipeError | None = None

    @property
    def open(self) -> int:
        """How many jobs of its last run that run would go on with."""
        counts = self.status.jobs if self.status else {}
        states = (JobState.PENDING, JobState.SUBMITTING, *PAID_OPEN)
        return sum(counts.get(state, 0) for state in states)

    @property
    def owed(self) -> int:
        """How many jobs are paid for, or may be, and not here."""
        return sum(self.status.jobs[state] for state in OWED) if self.status else 0

    @property
    def shared(self) -> bool:
        """Whether workers of a shared ledger are at it, which one more may help."""
        return self.status is not None and any(each.left_s > 0 for each in self.status.workers)

    def is_of(self, job_file: Path) -> bool:
        """Whether its last run was over ``job_file``; a run that just begins may be."""
        if self.status is None:
            return True
        if self.status.job_file is None:
            return self.status.holder is not None
        return same_file(self.status.job_file, job_file)


def same_file(noted: str, job_file: Path) -> bool:
    """Whether a ledger's job file is this one: by its path, or by its name where it was moved."""
    path = Path(noted)
    moved = path.name == job_file.name and not path.exists()
    return moved or path.resolve() == job_file.resolve()


def choose(
    template: FolderTemplate,
    at: datetime,
    found: Sequence[DatedFolder],
    *,
    job_file: Path,
    simulated: bool,
    new: bool,
    taken: Callable[[OutputPlace], bool],
) -> OutputPlace:
    """The folder that a run of ``job_file`` works in; ``found`` are those there are, newest first.

    The newest one of this job file, where its run has not ended or is under way; else that of the
    moment ``at``. With ``new`` one that is not ``taken``. A simulated run and a real one never meet
    in a folder. Raises FolderInUse, and LedgerError where nobody can tell what the newest one owes.
    """
    if new:
        return _another(template, at, taken)
    kin = [each for each in found if each.status is None or each.status.simulated == simulated]
    newest = next((each for each in kin if each.is_of(job_file)), None)
    if newest is not None and newest.trouble is not None:
        raise LedgerError(f"{newest.trouble} (--new opens another folder of {template})")
    if newest is not None and newest.status is not None and newest.status.holder is not None:
        raise in_use(newest.folder, newest.status.holder.who, NEW)
    if newest is not None and newest.open:
        return newest.folder
    moment = template.moment(template.folder(at))
    today = [each.folder for each in kin if moment and each.moment[0] == moment[0]]
    foreign = {each.folder for each in found} - {each.folder for each in kin}
    return today[0] if today else _another(template, at, foreign.__contains__)


def _another(
    template: FolderTemplate, at: datetime, taken: Callable[[OutputPlace], bool]
) -> OutputPlace:
    n = 1
    while taken(folder := template.folder(at, n)):
        n += 1
    return folder


def owing(
    found: Sequence[DatedFolder], folder: OutputPlace, *, job_file: Path, simulated: bool
) -> list[DatedFolder]:
    """Those besides ``folder`` that owe something which this run is to collect, newest first.

    Not what a run is fetching at the moment; and what belongs to another job file that is still
    there is left to the runs of that one.
    """
    return [
        each
        for each in found
        if each.status is not None
        and each.folder != folder
        and each.owed
        and each.status.simulated == simulated
        and each.status.holder is None
        and not each.shared
        and (
            each.status.job_file is None
            or same_file(each.status.job_file, job_file)
            or not Path(each.status.job_file).exists()
        )
    ]


def read_found(template: FolderTemplate) -> list[DatedFolder]:
    """The folders of a template that have a ledger, newest first."""
    return [_read(moment, folder) for moment, folder in _known(template)]


def _known(template: FolderTemplate) -> list[tuple[Moment, OutputPlace]]:
    """Those of this machine that have a record, and those that a shared ledger knows."""
    places: set[OutputPlace] = {folder for folder in template.found() if has_record(folder)}
    where = where_of(_sample(template))
    if isinstance(where, SharedPlace):
        # Each is called by its folder; names that a user gave are no template's.
        named = (_place_named(name) for name in place_names(where))
        places |= {place for place in named if place is not None and template.moment(place)}
    moments = [(moment, place) for place in places if (moment := template.moment(place))]
    return sorted(moments, key=lambda each: each[0], reverse=True)


def _sample(template: FolderTemplate) -> OutputPlace:
    """A folder of the template, and where it is on this disk one that there is not."""
    return template.folder(moment_now() if template.bucket else datetime(2000, 1, 1, tzinfo=UTC))


def _place_named(name: str) -> OutputPlace | None:
    try:
        return place_of(name)
    except UsageError:
        return None


def _read(moment: Moment, folder: OutputPlace) -> DatedFolder:
    try:
        return DatedFolder(moment=moment, folder=folder, status=read_status(folder))
    except (LedgerError, UsageError) as exc:  # or it is of a shared ledger, and nobody says which
        return DatedFolder(moment=moment, folder=folder, trouble=exc)


def moment_now() -> datetime:
    """The moment that placeholders say: in UTC, or in the zone of TZ; raises UsageError."""
    return datetime.now(zone_of(os.environ.get("TZ", "")))


# -- commands that take a folder ------------------------------------------------------------------


def named_folder(said: OutputPlace | FolderTemplate, tell: Callable[[str], None]) -> OutputPlace:
    """The folder that a command is given: itself, the newest of a template, or a job file's own.

    Raises UsageError where a template has none yet.
    """
    if isinstance(said, Path) and said.name == MANIFEST_NAME and said.is_file():
        return said.parent
    job_file = said if isinstance(said, Path) and said.is_file() else None
    meant = meant_by_file(open_jobs(job_file)) if job_file else meant_by(said)
    if isinstance(meant, FolderTemplate):
        folder = _newest(meant, job_file)
        tell(f"{folder} is the newest folder of {meant}")
        return folder
    if job_file is not None:
        tell(f"{meant} is the folder of {job_file}")
    return meant


def meant_by(said: OutputPlace | FolderTemplate) -> OutputPlace | FolderTemplate:
    """What a command line says of the output folder; raises UsageError."""
    if not isinstance(said, Path):
        return said
    try:
        template = FolderTemplate.of(str(said))
    except UsageError:
        if said.exists():  # it is older than placeholders are
            return said
        raise
    if template.varies:
        return template
    return said if said.exists() else template.root


def meant_by_file(file: JobFile) -> OutputPlace | FolderTemplate:
    """What a job file says of it."""
    return file.settings.template or file.settings.output_dir


def _newest(template: FolderTemplate, job_file: Path | None) -> OutputPlace:
    folders = [folder for _, folder in _known(template)]
    if not folders:
        raise UsageError(f"there is no folder of {template} yet: asyncpipe run opens the first one")
    if job_file is None:
        return folders[0]
    return next((each for each in folders if _is_of(each, job_file)), folders[0])


def _is_of(folder: OutputPlace, job_file: Path) -> bool:
    try:
        with reading(folder) as ledger:
            noted = ledger.job_file()
    except (LedgerError, UsageError):
        return False
    return noted is not None and same_file(noted, job_file)


# -- runs -----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class RunFolder:
    """Where a run works; ``job_file`` is what its ledger notes.

    ``begun`` is to be called when the run holds the folder: from then on that itself shows other
    commands that it is under way. ``owed`` jobs of other folders are paid for and not here; a run
    that ``went_on`` keeps its command from opening the folder that is due.
    """

    path: OutputPlace
    job_file: str
    begun: Callable[[], None] = lambda: None
    owed: int = 0
    went_on: bool = False

    def exit_code(self, code: int) -> int:
        """The exit code of the command whose run ended with ``code``; says what is left to do."""
        if code not in (Exit.OK, Exit.FAILED):
            return code
        if self.went_on:
            over = f"The interrupted run in {self.path} is over."
            echo(printable(f"{over} The same command again opens the folder that is due."))
        return Exit.AGAIN if self.owed else code


@contextmanager
def opened_folder(
    option: OutputPlace | FolderTemplate | None,
    file: JobFile,
    *,
    new: bool,
    again: Collection[JobState],
    simulated: bool,
    output: Output,
    collect: Callable[[OutputPlace], int],
) -> Iterator[RunFolder]:
    """Give the folder of a run over ``file``; what a template's other folders owe comes first.

    ``again`` are the states whose jobs are asked for once more. ``collect`` brings home what a
    folder has paid for and returns the exit code. Raises FolderInUse while another command chooses
    a folder of the template for the same job file, or works in it; UsageError for ``new`` without a
    template.
    """
    meant, tell = meant_by_file(file) if option is None else meant_by(option), _telling(output)
    if isinstance(meant, BucketUrl):
        if new:
            raise UsageError(f"--new opens another folder of a template, and {meant} is a bucket")
        yield RunFolder(path=meant, job_file=str(file.path))
        return
    if isinstance(meant, FolderTemplate):
        choosing = _chosen(meant, file, new=new, again=again, simulated=simulated, tell=tell)
        with choosing as (folder, owed):
            folder.owed = sum(collected(each, collect, tell) for each in owed)
            yield folder
        return
    if new:
        raise UsageError(
            f"--new opens another folder of a template, and {meant} is one folder: write "
            f"{meant}/{{date}}, or choose another with --output-dir"
        )
    _check_free(meant)
    yield RunFolder(path=meant, job_file=str(file.path))


@contextmanager
def _chosen(
    template: FolderTemplate,
    file: JobFile,
    *,
    new: bool,
    again: Collection[JobState],
    simulated: bool,
    tell: Callable[[str], None],
) -> Iterator[tuple[RunFolder, list[DatedFolder]]]:
    """Choose a folder, alone as long as nothing in it shows that it is chosen.

    Gives as well the other folders that are to be collected.
    """
    at, job_file = moment_now(), file.path.absolute()
    with ExitStack() as stack:
        if not _is_shared(template):  # whose workers are to choose the same one, at any instant
            make_folders(template.root, [STATE_FOLDER])
            stack.enter_context(choosing_lock(template.root, job_file, template))
        found = read_found(template)
        path = choose(
            template,
            at,
            found,
            job_file=job_file,
            simulated=simulated,
            new=new,
            taken=lambda place: _is_taken(place, found),
        )
        _check_free(path, NEW)
        known = next((each for each in found if each.folder == path), None)
        tell(_said(template, path, known))
        if known is None:
            _name_passed_over([each for each in found if each.is_of(job_file)], again, tell)
        _name_unreadable(found)
        due = template.moment(template.folder(at))
        folder = RunFolder(
            path=path,
            job_file=str(job_file),
            begun=stack.close,
            went_on=known is not None and due is not None and known.moment[0] != due[0],
        )
        yield folder, owing(found, path, job_file=job_file, simulated=simulated)


def _is_taken(place: OutputPlace, found: Sequence[DatedFolder]) -> bool:
    there = isinstance(place, Path) and place.exists()
    return there or any(each.folder == place for each in found)


def _is_shared(template: FolderTemplate) -> bool:
    """Whether its folders are places of a shared ledger.

    Raises UsageError where each worker would open a place of its own, or all moments had one.
    """
    folder = _sample(template)
    where = where_of(folder)
    if not isinstance(where, SharedPlace):
        return False
    if "time" in template.names:
        raise UsageError(
            f"{template} is another place for each worker of a shared ledger: use {{date}} or "
            "{week}, which they agree on"
        )
    if where.name != str(folder):
        raise UsageError(
            f"--place {where.name} is one place, and {template} another folder each time: leave "
            "--place out; each folder is a place then"
        )
    return True


def _check_free(folder: OutputPlace, remedy: str = ELSEWHERE) -> None:
    """Raise FolderInUse while a run works in ``folder``, before anything else is said or asked."""
    if isinstance(folder, BucketUrl):
        return
    if (held := holder(folder / STATE_FOLDER / "lock")) is not None:
        raise in_use(folder, held.who, remedy)


def _telling(output: Output) -> Callable[[str], None]:
    """Print a line that says which folder is meant, whatever else is not to be printed."""
    return lambda line: None if output.quiet else echo(printable(line))


def _said(template: FolderTemplate, path: OutputPlace, known: DatedFolder | None) -> str:
    if known is None:
        return f"{path} is a new folder of {template}"
    if not known.open:
        return f"{path} is the newest folder of {template}"
    jobs = "1 job has" if known.open == 1 else f"{known.open} jobs have"
    why = "where others work" if known.shared else "whose run was interrupted"
    return f"going on in {path}, {why}: {jobs} not ended ({NEW})"


def collected(
    each: DatedFolder, collect: Callable[[OutputPlace], int], tell: Callable[[str], None]
) -> int:
    """Bring home what a folder owes; returns how many jobs it owes then.

    What goes wrong there is said and stops nothing here; an interruption ends the command.
    """
    tell(f"{each.folder} has {_what(each)}: collecting, nothing is bought")
    try:
        code = collect(each.folder)
    except AsyncpipeError as exc:
        echo(printable(f"{each.folder}: {exc}"))
    else:
        if code >= FIRST_SIGNAL:
            raise click.exceptions.Exit(code)
    after = _read(each.moment, each.folder)
    if not after.owed:
        tell(f"{each.folder} has everything that it paid for")
    else:
        folder = shlex.quote(str(each.folder))
        echo(printable(f"{each.folder} still has {_what(after)}: asyncpipe status {folder}"))
    return after.owed


FIRST_SIGNAL = 128
"""Exit codes from here on say that a signal ended the command."""


def _what(each: DatedFolder) -> str:
    assert each.status is not None
    counts = [f"{n} {state.value}" for state in OWED if (n := each.status.jobs[state])]
    return f"jobs that are paid for, or may be, and not here ({', '.join(counts)})"


def _name_passed_over(
    ours: Sequence[DatedFolder], again: Collection[JobState], tell: Callable[[str], None]
) -> None:
    """Say that jobs which the user may have meant are in another folder than the new one."""
    newest = ours[0].status if ours else None
    if newest is not None and (count := sum(newest.jobs[state] for state in again)):
        folder = shlex.quote(str(newest.folder))
        tell(
            f"{count} {' or '.join(again)} jobs of {newest.folder} are not submitted again: that "
            f"takes --output-dir {folder}"
        )


def _name_unreadable(found: Sequence[DatedFolder]) -> None:
    unreadable = [each for each in found if each.trouble is not None]
    for each in unreadable[:SHOWN]:
        echo(printable(f"{each.folder} cannot say what it owes: {each.trouble}"))
    if len(unreadable) > SHOWN:
        echo(f"… and {len(unreadable) - SHOWN} more folders")
