"""What a provider says beside a job's outputs, and people should see: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Notes = dict[str, Any]
"""By what it is: ``nsfw`` (a flag per output), ``error`` (words beside outputs), ``status`` (a word
that is not known), ``given`` and ``asked`` (fewer outputs than the job asks for), ``raw`` (text: an
output that cannot be read), ``extras`` (so many outputs at the end are files that nobody asked for,
like a cover), ``moderated`` (whether moderation refused it), ``no_output`` (it was done, and had no
output). JSON types only."""

NO_NOTES: Notes = {}

MOST_KINDS = 50
"""So many different notes are counted one by one."""

MOST_NAMES = 3
"""So many jobs are named of each."""

_OTHERS = "the provider says something else"


@dataclass(slots=True)
class Noted:
    """How many jobs have a note, and the names of some; which ones is chance."""

    count: int = 0
    names: list[str] = field(default_factory=list, compare=False)


def phrases(notes: Notes) -> list[str]:
    """What notes say, a phrase each, the same for all jobs of which the same is said."""
    said = []
    if notes.get("nsfw"):
        said.append("flagged as not safe (NSFW) by the provider")
    if "asked" in notes:
        said.append(f"{notes.get('given')} of {notes['asked']} outputs came")
    if notes.get("error"):
        said.append(f"the provider says beside the outputs: {notes['error']}")
    if notes.get("raw"):
        said.append("the provider names an output that cannot be read")
    if notes.get("status"):
        said.append(f"delivered under {notes['status']!r}, a word that is not known")
    return said


def count_notes(counted: dict[str, Noted], name: str, notes: Notes, count: int = 1) -> None:
    """Count the notes of one job in, or with -1 out again."""
    for phrase in phrases(notes):
        full = phrase not in counted and (count < 0 or len(counted) >= MOST_KINDS)
        kind = _OTHERS if full else phrase
        noted = counted.setdefault(kind, Noted())
        noted.count += count
        if count < 0 and name in noted.names:
            noted.names.remove(name)
        elif count > 0 and len(noted.names) < MOST_NAMES:
            noted.names.append(name)
        if not noted.count:
            del counted[kind]
