"""The top level of a job file: everything but its jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from asyncpipe.errors import UsageError
from asyncpipe.jobfile.folders import FolderTemplate
from asyncpipe.jobfile.models import IGNORED, SettingsIn, fitting
from asyncpipe.jobfile.problems import Problems
from asyncpipe.jobfile.source import Block
from asyncpipe.jobs import (
    Ambiguous,
    Deadlines,
    Limits,
    Links,
    OutputPlace,
    Polling,
    WindowKind,
    check_whole,
    checked_ambiguous,
    checked_window,
    place_of,
)
from asyncpipe.pricing import Rate


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """A job file's top level, defaults filled in.

    ``provider`` is the name of the API (None: the environment's, or the usual one).
    ``max_workers`` bounds the predictions in flight; below it ``window`` learns what the API takes,
    or is ``fixed``; ``limits`` are caps of the user's own; ``max_cost`` is the most that the
    folder's jobs may cost, in USD (None: no limit), ``budgets`` and ``wait_for_day`` what those of
    a label or a day may (see ``SpendingLimits``); ``retries`` is how often a failure that is not
    charged is submitted again; ``ambiguous`` is what becomes of submits that lose their answer
    (hold, find, find-resubmit, resubmit); ``prices`` maps model ids to rates. Nothing is submitted
    while the account has less than ``min_balance`` USD (None: not asked). A quote that the provider
    only estimates is reserved times ``estimate_factor``. ``template`` is what ``output_dir`` says
    where that has placeholders in it: then that names no folder yet, ``template.folder(at)`` does.
    ``public_url`` and ``presign`` are how assets are linked to, see ``Links``; ``notify`` and
    ``notify_secret`` say who is told of a run's end, see ``Notify``.
    Raises UsageError naming the field that is wrong.
    """

    provider: str | None = None
    output_dir: OutputPlace = Path("pipeline_output")
    template: FolderTemplate | None = None
    max_workers: int = 64
    window: WindowKind = "learned"
    limits: Limits = field(default_factory=Limits)
    notify: tuple[str, ...] = ()
    notify_secret: str | None = None
    public_url: str | None = None
    presign: str | None = None
    max_cost: Decimal | None = None
    budgets: Mapping[str, Decimal] = field(default_factory=dict)
    wait_for_day: bool = False
    min_balance: Decimal | None = None
    estimate_factor: Decimal = Decimal("1.25")
    retries: int = 2
    ambiguous: Ambiguous = "find"
    deadlines: Deadlines = field(default_factory=Deadlines)
    polling: Polling = field(default_factory=Polling)
    prices: Mapping[str, Rate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, minimum in (("max_workers", 1), ("retries", 0)):
            check_whole(name, getattr(self, name), minimum)
        checked_window(self.window)
        checked_ambiguous(self.ambiguous)


def read_settings(top: Block, problems: Problems) -> RunSettings:
    """Check the top level; what it does not say keeps its default."""
    ours = Block(((k, v) for k, v in top.items() if not k.startswith(IGNORED)), top.lines)
    said = fitting(ours, SettingsIn, problems)
    if "output_dir" in said:
        said |= _folder(said["output_dir"], problems, line=top.lines.get("output_dir"))
    try:
        Links.of(said.get("public_url"), said.get("presign"))
    except UsageError as exc:
        line = top.lines.get("public_url") or top.lines.get("presign")
        problems.report(str(exc), line=line)
    if "notify" in said or "notify_secret" in said:
        _check_notify(said, top, problems)
    if "deadline_s" in said:
        said["deadlines"] = said.pop("deadline_s")
    known = {each.name for each in fields(RunSettings)}
    return RunSettings(**{key: value for key, value in said.items() if key in known})


def _check_notify(said: Mapping[str, Any], top: Block, problems: Problems) -> None:
    """Report URLs to tell, and a secret, that can be none."""
    from asyncpipe.webhooks import Notify  # with it comes aiohttp, which most files need not

    try:
        Notify.check(said.get("notify", ()), said.get("notify_secret"))
    except UsageError as exc:
        where = "notify_secret" if str(exc).startswith("notify_secret") else "notify"
        problems.report(str(exc), line=top.lines.get(where))


def _folder(text: str, problems: Problems, *, line: int | None) -> dict[str, Any]:
    """What the name of an output folder says."""
    if re.search("[\x00-\x1f]", text):
        why = "has a line break or the like in it, as \\n becomes in double quotes: use /"
        problems.report(f"output_dir: {text[:60]!r} {why}", line=line)
        return {"output_dir": Path(text)}
    try:
        template = FolderTemplate.of(text)
        plain = place_of(text) if template.bucket and not template.varies else template.root
    except UsageError as exc:
        problems.report(f"output_dir: {exc}", line=line)
        return {"output_dir": Path(text)}
    if template.varies:
        return {"output_dir": Path(text), "template": template}
    return {"output_dir": plain}
