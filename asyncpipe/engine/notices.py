"""Telling people: what a run's end, a stop or a decision comes to, and to whom it is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any

import anyio

from asyncpipe._text import printable
from asyncpipe.errors import (
    AsyncpipeError,
    BalanceExhausted,
    BalanceTooLow,
    BudgetReached,
    DiskError,
    KeyRefused,
)
from asyncpipe.jobs import now
from asyncpipe.pricing import Tell, usd_text
from asyncpipe.report import Totals
from asyncpipe.webhooks import Notice, Notify, Occasion, post_notice, run_command

logger = logging.getLogger("asyncpipe.notify")

LIMIT_S = 30.0
"""Longest that whoever waits for it is held up by telling everybody, in seconds."""

SETTLE_S = 10.0
"""A stop is told so long after it came: of a run that ends with it the end is told alone."""

_DECISIONS: tuple[tuple[type[AsyncpipeError], str, str], ...] = (
    (BudgetReached, "the cap is reached", "raise max_cost, or leave the rest unbought"),
    (BalanceExhausted, "the account has no money left", "top it up"),
    (BalanceTooLow, "the account has less than min_balance", "top it up, or lower min_balance"),
    (KeyRefused, "the key is refused", "correct the key"),
    (DiskError, "the disk does not take what is written", "make room"),
)

EXITS = {0: "every job succeeded", 1: "some failed", 2: "the input or the key is wrong"}
EXITS |= {3: "stopped before the end", 75: "unknown or unfinished jobs remain"}


def notice_of(
    *,
    folder: str,
    totals: Totals | None,
    stopped: AsyncpipeError | None = None,
    ended: bool = True,
    interrupted: bool = False,
    exit_code: int | None = None,
    job_file: str | None = None,
    simulated: bool = False,
) -> Notice:
    """What is to be told of a run; ``totals`` None: nothing of it is known, it could not begin.

    Not ``ended``: submitting has stopped, what is paid for goes on.
    """
    decision, remedy = _decision(totals, stopped, folder)
    if decision is not None:
        occasion = Occasion.DECISION
    elif stopped is not None or interrupted or not ended:
        occasion = Occasion.STOPPED
    else:
        occasion = Occasion.ENDED
    remedy = remedy or _remedy(totals, stopped, folder)
    facts: dict[str, Any] = {
        "folder": folder,
        "job_file": job_file,
        **_counts(totals),
        "exit_code": exit_code,
        "interrupted": interrupted,
        "reason": None if stopped is None else printable(str(stopped))[:500],
        "decision": decision,
        "remedy": remedy,
        "simulated": simulated,
    }
    text = "\n".join(_lines(facts, occasion, ended=ended))
    return Notice(occasion=occasion, at=now(), text=text, facts=facts)


def _counts(totals: Totals | None) -> dict[str, Any]:
    if totals is None:
        return {}
    return {
        "total": totals.total,
        "succeeded": totals.successful,
        "failed": totals.failed,
        "unknown": totals.unknown,
        "pending": totals.pending,
        "charged_usd": usd_text(totals.charged),
        "reserved_usd": usd_text(totals.reserved),
    }


def _decision(
    totals: Totals | None, stopped: AsyncpipeError | None, folder: str
) -> tuple[str | None, str | None]:
    """What people have to decide, and how; None: nothing."""
    for kind, what, remedy in _DECISIONS:
        if isinstance(stopped, kind):
            return what, f"{remedy}, then run the same command again"
    if totals is not None and totals.unknown:
        what = f"{totals.unknown} submits lost their answers: they may have been bought"
        return what, f"asyncpipe resolve {folder} --find, or compare with your bill"
    return None, None


def _remedy(totals: Totals | None, stopped: AsyncpipeError | None, folder: str) -> str | None:
    """What to do where nothing is to be decided."""
    if stopped is not None or (totals is not None and totals.pending):
        return "run the same command again to go on"
    if totals is not None and totals.failed:
        return f"see {folder}/manifest.json; run again with --retry-failed what was not charged"
    return None


def _lines(facts: dict[str, Any], occasion: Occasion, *, ended: bool) -> list[str]:
    """The notice for people: what, how many, money, exit code, remedy."""
    what = facts["job_file"] or facts["folder"]
    verb = {
        Occasion.ENDED: "has ended",
        Occasion.STOPPED: "was stopped before its end",
        Occasion.DECISION: "needs a decision",
    }[occasion]
    lines = [f"asyncpipe: {what} {verb}" + (" (simulated)" if facts["simulated"] else "")]
    if facts["decision"]:
        lines.append(f"To decide: {facts['decision']}")
    if facts["reason"]:
        lines.append(f"Because: {facts['reason']}")
    if not ended:
        lines.append("What is paid for goes on; nothing more is submitted")
    if "total" in facts:
        others = [f"{facts[n]} {n}" for n in ("failed", "unknown", "pending") if facts[n]]
        counted = f"{facts['succeeded']} of {facts['total']} succeeded"
        lines.append("Jobs: " + ", ".join([counted, *others]))
        lines.append(f"Money: {facts['charged_usd']} USD charged, {facts['reserved_usd']} reserved")
    if facts["exit_code"] is not None:
        said = EXITS.get(facts["exit_code"], "interrupted")
        lines.append(f"Exit code: {facts['exit_code']}, {said}")
    lines.append(f"Folder: {facts['folder']}")
    if facts["remedy"]:
        lines.append(f"What to do: {facts['remedy']}")
    return [printable(line) for line in lines]


class Notices:
    """Tells everybody, each apart from the others; whoever cannot be told is a remark.

    ``hidden`` are the environment variables that a command is not given: the API's keys.
    """

    def __init__(self, notify: Notify, tell: Tell, *, hidden: Collection[str] = ()) -> None:
        self._notify, self._tell, self._hidden = notify, tell, frozenset(hidden)
        self._stop = asyncio.Event()
        for host in notify.unsigned:
            tell(f"what {host} is told is not signed: set ASYNCPIPE_NOTIFY_SECRET for that")

    async def send(self, notice: Notice) -> None:
        """Tell everybody within LIMIT_S; never raises but for a cancellation."""
        sends: list[Callable[[], Coroutine[Any, Any, None]]] = [
            partial(self._surely, target.host, partial(post_notice, target, notice))
            for target in self._notify.targets
        ]
        if argv := self._notify.argv:
            command = partial(run_command, argv, notice, hidden=self._hidden)
            sends.append(partial(self._surely, argv[0], command))
        async with anyio.create_task_group() as tasks:
            for send in sends:
                tasks.start_soon(send, name="asyncpipe notice")

    async def _surely(self, who: str, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        why = f"{printable(who)} was not told within {LIMIT_S:g} s"
        with anyio.move_on_after(LIMIT_S):
            try:
                return await send()
            except AsyncpipeError as exc:
                why = f"not told: {exc}"
            except Exception as exc:  # whatever it is, it is not the run's affair
                logger.debug("notice failed", exc_info=exc)
                why = f"{printable(who)} was not told: {type(exc).__name__}"
        self._tell(why)

    def stopped(self) -> None:
        """Have a stop told a little later, as things stand by then."""
        self._stop.set()

    async def ended(self, notice: Notice) -> None:
        """Tell the end of a batch, if that is to be told here; a stop that waits is in it."""
        self._stop.clear()
        if self._notify.ends:
            await self.send(notice)

    async def run(self, notice: Callable[[], Notice]) -> None:
        """Tell stops, for ever."""
        while True:
            await self._stop.wait()
            await asyncio.sleep(SETTLE_S)
            if self._stop.is_set():
                self._stop.clear()
                await self.send(notice())
