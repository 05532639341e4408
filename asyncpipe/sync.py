"""Everything without ``await``: for scripts, views of Django, tasks of Celery.

A script runs a batch, or one job, and that is all::

    from asyncpipe import Pipeline, sync

    manifest = sync.run(Pipeline(provider, "out"), "jobs.yaml")

What answers requests keeps one ``BlockingPipeline`` a process, for all of its threads. Inside a
running loop every call raises UsageError: there it would hold up everybody else.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from weakref import WeakMethod

from asyncpipe._tasks import loop_factory
from asyncpipe.commands import Folder, Jobs, Rows
from asyncpipe.commands import collect as _collect
from asyncpipe.commands import estimate as _estimate
from asyncpipe.commands import export as _export
from asyncpipe.commands import find_lost as _find_lost
from asyncpipe.commands import prune as _prune
from asyncpipe.commands import quote as _quote
from asyncpipe.commands import reconcile as _reconcile
from asyncpipe.commands import resolve as _resolve
from asyncpipe.commands import status as _status
from asyncpipe.commands import take_prediction as _take_prediction
from asyncpipe.commands import validate as _validate
from asyncpipe.commands import verify as _verify
from asyncpipe.engine import JobLike, Pipeline
from asyncpipe.errors import AsyncpipeError, UsageError
from asyncpipe.jobfile import JobFile, open_jobs
from asyncpipe.jobs import Links
from asyncpipe.report import Manifest, Result

__all__ = [
    "BlockingPipeline",
    "collect",
    "estimate",
    "export",
    "find_lost",
    "generate",
    "prune",
    "quote",
    "reconcile",
    "resolve",
    "run",
    "status",
    "take_prediction",
    "validate",
    "verify",
]

P = ParamSpec("P")
T = TypeVar("T")


def _check_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "asyncpipe.sync blocks, and this thread runs an event loop: await the function of the same "
        "name in asyncpipe, or Pipeline's own methods; or call this in a thread"
    )


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end in a loop of its own; Ctrl-C cancels it first."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def _blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        _check_no_loop()
        return _wait_for(function(*args, **kwargs))

    return call


estimate = _blocking(_estimate)
quote = _blocking(_quote)
validate = _blocking(_validate)
status = _blocking(_status)
verify = _blocking(_verify)
collect = _blocking(_collect)
resolve = _blocking(_resolve)
take_prediction = _blocking(_take_prediction)
find_lost = _blocking(_find_lost)
reconcile = _blocking(_reconcile)
prune = _blocking(_prune)


@overload
def export(
    folder: Folder,
    path: None = None,
    *,
    rows: Rows = "jobs",
    links: Links | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> list[dict[str, Any]]: ...


@overload
def export(
    folder: Folder,
    path: str | Path,
    *,
    rows: Rows = "jobs",
    links: Links | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> int: ...


def export(
    folder: Folder, path: str | Path | None = None, **options: Any
) -> list[dict[str, Any]] | int:
    """Write a row per job, or per submit, to ``path``, or return them: see ``asyncpipe.export``."""
    _check_no_loop()
    exporting: Callable[..., Coroutine[Any, Any, list[dict[str, Any]] | int]] = _export
    return _wait_for(exporting(folder, path, **options))


def run(pipeline: Pipeline, jobs: Jobs, *, retry_failed: bool = False) -> Manifest:
    """Open ``pipeline``, run all jobs (a job file, or jobs), close it; return the manifest.

    Of a job file only its jobs are taken: what ``pipeline`` was made with says the rest. Ctrl-C
    leaves nothing unknown and is raised as KeyboardInterrupt; the same call goes on. Raises what
    ``Pipeline.batch_generate`` does.
    """
    _check_no_loop()
    work = partial(pipeline.batch_generate, jobs_of(jobs), retry_failed=retry_failed)
    return _wait_for(_opened(pipeline, work))


def generate(pipeline: Pipeline, job: JobLike) -> Result:
    """Open ``pipeline``, run one job, close it; see ``Pipeline.generate``.

    For more than one job in a process keep a ``BlockingPipeline``.
    """
    _check_no_loop()
    return _wait_for(_opened(pipeline, partial(pipeline.generate, job)))


async def _opened(pipeline: Pipeline, work: Callable[[], Awaitable[T]]) -> T:
    async with pipeline:
        return await work()


def jobs_of(jobs: Jobs) -> Iterable[JobLike]:
    """The jobs of a job file, or those that are given; raises JobFileError."""
    if isinstance(jobs, str | Path):
        return open_jobs(jobs).jobs
    return jobs.jobs if isinstance(jobs, JobFile) else jobs


class BlockingPipeline:
    """A pipeline for threads: it is opened once a process, in a thread of its own.

    Make one for the program, and call it from as many threads as you like. It opens with its first
    call, in each process anew (so a server may fork as it likes), and closes with the process, with
    ``close``, or at the end of a ``with`` block; what was submitted is waited for as ``Pipeline``
    does. ``make`` is called when it opens; a Pipeline that was not opened will do, where the
    process does not fork after it. Raises what opening a Pipeline does, at every call until it
    succeeds, and UsageError inside a running loop.
    """

    def __init__(self, make: Callable[[], Pipeline] | Pipeline) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._live: _Live | None = None
        _at_exit(self)

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, if it is open; the next call opens it again."""
        _check_no_loop()
        with self._lock:
            live, self._live = self._live, None
        if live is not None and live.process == os.getpid():
            live.close()

    def call(
        self, work: Callable[[Pipeline], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Do anything with the pipeline that is awaited: ``call(lambda p: p.collect())``.

        Raises TimeoutError after ``timeout_s`` seconds; then, and at Ctrl-C, it is cancelled.
        """
        live = self._opened()
        return live.wait_for(_within(work(live.pipeline), timeout_s))

    def generate(self, job: JobLike, *, timeout_s: float | None = None) -> Result:
        """Run one job; see ``Pipeline.generate``.

        A job that was submitted goes on after TimeoutError: call again with its name to wait on.
        """
        return self.call(lambda pipeline: pipeline.generate(job), timeout_s=timeout_s)

    def run(self, jobs: Jobs, *, retry_failed: bool = False) -> Manifest:
        """Run all jobs; see ``Pipeline.batch_generate``."""
        each = jobs_of(jobs)
        return self.call(lambda pipeline: pipeline.batch_generate(each, retry_failed=retry_failed))

    def stream(self, jobs: Jobs) -> Iterator[Result]:
        """Yield results as jobs finish; see ``Pipeline.stream``."""
        live = self._opened()
        results = live.pipeline.stream(jobs_of(jobs))
        try:
            while (result := live.wait_for(_next_of(results))) is not None:
                yield result
        finally:
            live.wait_for(results.aclose())

    def _opened(self) -> _Live:
        _check_no_loop()
        with self._lock:
            if self._live is not None and not self._live.here:
                self._live = None  # another process's, or closed by an error
            if self._live is None:
                make = self._make
                self._live = _Live(make if isinstance(make, Pipeline) else make())
            return self._live


async def _within(work: Awaitable[T], timeout_s: float | None) -> T:
    async with asyncio.timeout(timeout_s):
        return await work


async def _next_of(results: AsyncGenerator[Result, None]) -> Result | None:
    return await anext(results, None)


class _Live:
    """One opened pipeline, the loop that it lives in, and that loop's thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.process = pipeline, os.getpid()
        opened: Future[asyncio.AbstractEventLoop] = Future()
        self._leave = asyncio.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._serve, args=(opened,), name="asyncpipe", daemon=True
        )
        self._thread.start()
        self._loop = opened.result()

    @property
    def here(self) -> bool:
        """Whether it lives in this process."""
        return self.process == os.getpid() and self._thread.is_alive()

    def _serve(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._stay(opened))
        except BaseException as exc:
            if opened.done():
                self._error = exc
            else:
                opened.set_exception(exc)

    async def _stay(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        async with self.pipeline:
            opened.set_result(asyncio.get_running_loop())
            await self._leave.wait()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Have ``work`` done in the loop; a thread that is interrupted meanwhile cancels it."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise AsyncpipeError("the pipeline is closed") from None
        try:
            return future.result()
        except CancelledError:
            raise AsyncpipeError("the pipeline was closed meanwhile; its jobs are kept") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Close the pipeline and end the thread; raises what its closing does."""
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()
        if self._error is not None:
            raise self._error


def _at_exit(pipeline: BlockingPipeline) -> None:
    """Have it closed when the process ends, while threads can still be started.

    ``atexit`` comes too late for that: no file can be written in a thread any more.
    """
    register: Callable[[Callable[[], None]], None] | None
    register = getattr(threading, "_register_atexit", None)
    close = WeakMethod(pipeline.close)

    def close_it() -> None:
        if (still_there := close()) is not None:
            still_there()

    if register is not None:
        register(close_it)
