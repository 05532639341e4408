"""What a command tells when it is over: the end of its run, or the error that kept it from one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from asyncpipe._tasks import loop_factory
from asyncpipe._text import printable
from asyncpipe.cli.session import End, Output, echo, of_error
from asyncpipe.engine import Notices, notice_of
from asyncpipe.errors import AsyncpipeError, FolderInUse
from asyncpipe.providers import key_variables
from asyncpipe.report import Totals
from asyncpipe.webhooks import Notice, Notify


@dataclass(kw_only=True)
class EndNotices:
    """Tells how a command ended, by its options and, once it is read, its job file."""

    job_file: str
    urls: Sequence[str]
    command: str | None
    private: bool
    simulated: bool
    output: Output
    folder: str = ""
    notify: Notify | None = field(init=False)
    _end: tuple[Totals, End] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.add([], None)

    def add(self, urls: Sequence[str], secret: str | None) -> None:
        """Tell whom a job file names, too, signed as it says; raises UsageError."""
        said = Notify(
            urls=[*self.urls, *urls],
            command=self.command,
            secret=secret,
            private=self.private,
            ends=False,
        )
        self.notify = Notify.of(said)

    def ended(self, totals: Totals, end: End) -> None:
        """Take note of how a run ended."""
        self._end = totals, end

    def tell(self, code: int) -> None:
        """Tell the end that was noted, and the exit code of the command."""
        if self._end is None:
            return
        totals, end = self._end
        self._send(
            notice_of(
                folder=self.folder,
                totals=totals,
                stopped=end.stopped,
                interrupted=end.interrupted is not None,
                exit_code=int(code),
                job_file=self.job_file,
                simulated=self.simulated,
            )
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Tell an error that ends the command; not that others hold the folder, who tell theirs."""
        try:
            yield
        except FolderInUse:
            raise
        except AsyncpipeError as exc:
            self._send(
                notice_of(
                    folder=self.folder,
                    totals=None,
                    stopped=exc,
                    exit_code=int(of_error(exc)),
                    job_file=self.job_file,
                    simulated=self.simulated,
                )
            )
            raise

    def _send(self, notice: Notice) -> None:
        """Tell everybody; Ctrl-C leaves the rest untold, and changes no exit code."""
        if self.notify is None:
            return
        notices = Notices(self.notify, self._remark, hidden=key_variables())
        with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(notices.send(notice))

    def _remark(self, line: str) -> None:
        if not self.output.quiet:
            echo(printable(line))
