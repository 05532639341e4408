"""Telling what happened: one request to each target, tried again a little, or one command."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Collection
from contextlib import suppress

import aiohttp
import anyio
import orjson
from yarl import URL

from asyncpipe._tasks import Retries, retrying
from asyncpipe._text import printable
from asyncpipe.errors import AsyncpipeError, DownloadError
from asyncpipe.http import USER_AGENT, connector_options, proxy_for, retry_after_s
from asyncpipe.webhooks.notice import Notice, Recipient, refused_by, request_of, variables_of

RETRIES = Retries(attempts=5, initial_s=1.0, maximum_s=8.0, longest_wish_s=10.0)

REQUEST_S = 10.0

LIMIT_S = 30.0
"""Longest that the end of a run is held up, whatever is told to whom."""

KILL_S = 2.0

_AGAIN = (408, 425, 429)

_LARGEST_ANSWER = 64 * 1024


class NotTold(AsyncpipeError):
    """A target did not take a notice; ``again``: another try may do, ``retry_after_s`` its wish."""

    def __init__(self, message: str, *, again: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.again, self.retry_after_s = again, retry_after_s


async def post_notice(target: Recipient, notice: Notice) -> None:
    """Tell one target, again where that may help; raises AsyncpipeError, showing its host only."""
    message = f"msg_{uuid.uuid4().hex}"
    connector = aiohttp.TCPConnector(**connector_options(guarded=not target.inside))
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=REQUEST_S),
        headers={"User-Agent": USER_AGENT},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:

        async def once() -> None:
            await _post(session, target, notice, message)

        await retrying(once, RETRIES, on=NotTold, again=lambda exc: exc.again)


async def _post(
    session: aiohttp.ClientSession, target: Recipient, notice: Notice, message: str
) -> None:
    body, headers = request_of(target, notice, message, int(time.time()))
    try:
        async with session.post(
            URL(target.url, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
            proxy=proxy_for(target.url),
        ) as answer:
            status, told = answer.status, await answer.content.read(_LARGEST_ANSWER)
            wish_s = retry_after_s(answer.headers)
    except DownloadError:  # the resolver's word for what is not public
        why = "its name leads into a private network: say --notify-private if that is yours"
        raise NotTold(f"{target.host} is not told: {why}", again=False) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as exc:
        # Not chained: it may hold the URL, which is a secret.
        why = f"{target.host} cannot be told: {type(exc).__name__}"
        raise NotTold(why, again=True) from None
    if (refused := refused_by(target, status, told)) is not None:
        again = status in _AGAIN or status >= 500
        raise NotTold(f"{target.host}: {refused}", again=again, retry_after_s=wish_s)


async def run_command(argv: tuple[str, ...], notice: Notice, *, hidden: Collection[str]) -> None:
    """Run a command with the facts as JSON on its stdin and in ASYNCPIPE_… variables; no shell.

    ``hidden`` variables, the API's keys, are not in its environment. What it prints goes where our
    errors go. Raises AsyncpipeError when it cannot be run or fails; cancelled, it is killed.
    """
    name = printable(argv[0])
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | variables_of(notice)
    facts = {"event": str(notice.occasion), "at": notice.at.isoformat(), **notice.facts}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=2,
            env=environment,
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as exc:
        why = getattr(exc, "strerror", None) or type(exc).__name__
        raise NotTold(f"{name} cannot be run: {why}", again=False) from None
    try:
        await process.communicate(orjson.dumps({**facts, "text": notice.text}) + b"\n")
    finally:
        if process.returncode is None:
            _kill(process)
            with anyio.move_on_after(KILL_S, shield=True):
                await process.wait()
    if process.returncode:
        raise NotTold(f"{name} ended with exit code {process.returncode}", again=False)


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a command and what it has started."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
