"""What is told of a run, and where to: bodies for Standard Webhooks, Slack and Feishu; pure."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import orjson

from asyncpipe._text import printable
from asyncpipe.errors import UsageError
from asyncpipe.http import is_loopback
from asyncpipe.webhooks.address import LONGEST_URL, is_public_host
from asyncpipe.webhooks.standard import secret_of, sign

SECRET_VARIABLE = "ASYNCPIPE_NOTIFY_SECRET"  # noqa: S105 - its name

LONGEST_TEXT = 2000

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)


class Occasion(StrEnum):
    """When something is told: a run has ended, was stopped before its end, or waits for people."""

    ENDED = "run.ended"
    STOPPED = "run.stopped"
    DECISION = "run.needs_decision"


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What is told at one moment: ``text`` for people, ``facts`` for programs, as JSON has them."""

    occasion: Occasion
    at: datetime
    text: str
    facts: Mapping[str, Any]


class NoticeFormat(StrEnum):
    """What the other side reads."""

    STANDARD = "standard"
    SLACK = "slack"
    FEISHU = "feishu"


_BY_HOST = {
    "hooks.slack.com": NoticeFormat.SLACK,
    "open.feishu.cn": NoticeFormat.FEISHU,
    "open.larksuite.com": NoticeFormat.FEISHU,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipient:
    """One URL that is told; it is never shown whole, since whoever knows it can write there.

    ``inside``: it may be on this machine or in the user's own network.
    """

    url: str = field(repr=False)
    format: NoticeFormat
    secret: str | None = field(default=None, repr=False)
    inside: bool = False

    @property
    def host(self) -> str:
        """What is shown of it."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notify:
    """Who is told when a run ends, stops or needs a decision.

    ``urls`` are https on public hosts, or on this machine; with ``private`` in the user's own
    network, too. What is sent goes by the host, or by a prefix: ``slack:``, ``feishu:``,
    ``standard:``. ``$NAME`` stands for what is in that environment variable. ``secret``
    (``$NAME``, by default $ASYNCPIPE_NOTIFY_SECRET if that is set) signs what is no chat's.
    ``command`` is run without a shell. Without ``ends`` only stops on the way are told, as where
    whoever runs the pipeline tells the end. Raises UsageError.
    """

    urls: Sequence[str] = ()
    command: str | None = None
    secret: str | None = None
    private: bool = False
    ends: bool = True
    targets: tuple[Recipient, ...] = field(init=False, repr=False, default=())
    argv: tuple[str, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        secret = _secret(self.secret)
        targets = [_target(text, secret, private=self.private) for text in self.urls]
        object.__setattr__(self, "targets", tuple(targets))
        object.__setattr__(self, "argv", _argv(self.command))

    @classmethod
    def of(cls, said: Notify | str | Sequence[str] | None) -> Notify | None:
        """Take what a library caller gave; None where nobody is told."""
        if isinstance(said, Notify):
            return said if said.targets or said.argv else None
        urls = [said] if isinstance(said, str) else [*(said or ())]
        return cls(urls=urls) if urls else None

    @staticmethod
    def check(urls: Sequence[str], secret: str | None) -> None:
        """Raise UsageError for what can be no URL or secret, whatever the environment holds."""
        for text in urls:
            if not _names_variable(_split(text)[1]):
                _target(text, None, private=True)
        if secret is not None and not _names_variable(secret):
            raise UsageError(CLEAR_SECRET)

    @property
    def unsigned(self) -> list[str]:
        """The hosts that are told without a signature, for want of a secret."""
        return [
            each.host
            for each in self.targets
            if each.format is NoticeFormat.STANDARD and each.secret is None
        ]


def _argv(command: str | None) -> tuple[str, ...]:
    if command is None:
        return ()
    try:
        argv = shlex.split(command, posix=os.name == "posix")
    except ValueError as exc:
        raise UsageError(f"--exec: {command[:100]!r} cannot be read: {exc}") from None
    if not argv:
        raise UsageError("--exec: name a program")
    return tuple(argv)


CLEAR_SECRET = (
    f"notify_secret: name an environment variable that holds it, as ${SECRET_VARIABLE}; a secret "
    "that is written down is none"
)


def _names_variable(text: str) -> bool:
    return _VARIABLE.fullmatch(text.strip()) is not None


def _split(text: str) -> tuple[NoticeFormat | None, str]:
    """The format that a prefix says, and what comes after it."""
    prefix, colon, rest = text.strip().partition(":")
    if colon and prefix in {*NoticeFormat}:
        return NoticeFormat(prefix), rest.strip()
    return None, text.strip()


def _secret(said: str | None) -> str | None:
    """The secret that is meant; raises UsageError where it stands there in clear."""
    if said is None:
        secret = os.environ.get(SECRET_VARIABLE, "").strip() or None
    elif not _names_variable(said):
        raise UsageError(CLEAR_SECRET)
    else:
        secret = _meant(said.strip(), "notify_secret")
    return secret


def _meant(text: str, what: str) -> str:
    """The text, or what is in the environment variable that it names."""
    if (named := _VARIABLE.fullmatch(text)) is None:
        return text
    name = named[1] or named[2]
    if not (value := os.environ.get(name, "").strip()):
        raise UsageError(f"{what}: the environment variable {name} is not set")
    return value


def _target(text: str, secret: str | None, *, private: bool) -> Recipient:
    """One URL as a user writes it; raises UsageError, which shows nothing but its host."""
    chosen, said = _split(text)
    url = _meant(said, "notify")
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise UsageError("notify: it holds no URL that can be read") from None
    if parts.scheme not in ("http", "https") or not host or len(url) > LONGEST_URL:
        raise UsageError(
            "notify: write an https URL, or $NAME for one in an environment variable, before it "
            f"slack:, feishu: or standard: where its host does not say; not {printable(text[:12])}…"
        )
    inside = is_loopback(host) or private
    if not inside and (parts.scheme != "https" or not is_public_host(host)):
        raise UsageError(
            f"notify: {parts.scheme}://{host} is not told: https on public hosts is, or this "
            "machine; for hosts of your own network say --notify-private"
        )
    form = chosen or _BY_HOST.get(host, NoticeFormat.STANDARD)
    if form is NoticeFormat.STANDARD and secret is not None:
        secret_of(secret)
    own = secret if form is NoticeFormat.STANDARD else None
    return Recipient(url=url, format=form, secret=own, inside=inside)


def request_of(
    target: Recipient, notice: Notice, message: str, at: int
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of one attempt at ``at`` (Unix seconds); ``message`` stays the same."""
    text = notice.text[:LONGEST_TEXT]
    match target.format:
        case NoticeFormat.SLACK:
            body: dict[str, Any] = {"text": _for_slack(text)}
        case NoticeFormat.FEISHU:
            body = {"msg_type": "text", "content": {"text": text}}
        case NoticeFormat.STANDARD:
            body = {
                "type": f"asyncpipe.{notice.occasion}",
                "timestamp": notice.at.isoformat(),
                "data": {**notice.facts, "text": text},
            }
    raw = orjson.dumps(body)
    headers = {"Content-Type": "application/json"}
    if target.format is NoticeFormat.STANDARD:
        headers |= {"webhook-id": message, "webhook-timestamp": str(at)}
        if target.secret is not None:
            headers |= sign(target.secret, message, at, raw)
    return raw, headers


def _for_slack(text: str) -> str:
    """Slack reads these three as its own; the rest of a text stays as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def refused_by(target: Recipient, status: int, body: bytes) -> str | None:
    """Why an answer is no success, in words, or None; Feishu says so under a 200."""
    if status // 100 != 2:
        return f"it answered {status}"
    if target.format is NoticeFormat.FEISHU:
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        code = said.get("code", 0) if isinstance(said, dict) else 0
        if code != 0:
            return f"it answered code {printable(str(code))[:20]}"
    return None


def variables_of(notice: Notice) -> dict[str, str]:
    """What a command finds in its environment, each named ASYNCPIPE_….

    A fact that is not known, or is none, is not there.
    """
    found = {"ASYNCPIPE_EVENT": str(notice.occasion), "ASYNCPIPE_TEXT": notice.text}
    for name, value in notice.facts.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found[f"ASYNCPIPE_RUN_{name.upper()}"] = str(value).replace("\0", "")
    return found
