"""What a program's hooks hear: every event, in order, and never in the way of paid work."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import anyio
import anyio.lowlevel

from asyncpipe._tasks import tasks_apart
from asyncpipe.jobs import Event, Hook, JobRecord

logger = logging.getLogger("asyncpipe.hooks")

LIMIT = 10_000
"""How many events may wait for one hook."""

SLICE_S = 0.02
"""How long hooks are called in a row before everybody else on the loop has a turn."""

SLOW_S = 0.1
"""A sync hook that takes so long holds up the loop …"""

SLOW_CALLS = 3
"""… and after so many times it is called in a thread."""

LEAVING_S = 10.0
"""How long a pipeline that closes waits for its hooks."""


class Listener:
    """One hook, and the events that it has not heard yet: at most ``limit``.

    A sync hook is called on the loop, right after the tick in which something happened; one that
    was slow SLOW_CALLS times is called in a thread from then on. An async one is awaited in a task
    of its own, one event after the other. What comes while ``limit`` events wait is left out, and
    counted in ``dropped``; so are polls while half as many wait.
    """

    def __init__(self, hook: Hook, *, limit: int = LIMIT) -> None:
        self.hook, self.dropped = hook, 0
        self.awaited = _is_async(hook)
        self.ended = asyncio.Event()
        self._limit, self._closing = limit, False
        self._heard: deque[tuple[Event, JobRecord]] = deque()
        self._answer: Awaitable[object] | None = None
        self._news = asyncio.Event()
        self._threaded, self._slow = False, 0
        self._failures: Counter[type[BaseException]] = Counter()

    def __repr__(self) -> str:
        return str(getattr(self.hook, "__qualname__", type(self.hook).__qualname__))

    @property
    def waiting(self) -> int:
        """How many events it has not heard yet."""
        return len(self._heard) + (self._answer is not None)

    def hear(self, event: Event, record: JobRecord) -> None:
        """Keep an event for it, if there is room."""
        if len(self._heard) >= (self._limit if event.stored else self._limit // 2):
            self._leave_out()
            return
        self._heard.append((event, record))
        self._news.set()

    def _leave_out(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "hook %s does not keep up: %d events wait for it, and what comes until there is "
                "room is left out",
                self,
                len(self._heard),
                extra={"action": "hook.dropped"},
            )

    def tell(self, until: float) -> None:
        """Call a sync hook with what it has not heard, until then by ``perf_counter``."""
        while self._heard and not self.awaited:
            event, record = self._heard.popleft()
            began = perf_counter()
            try:
                answer = self.hook(event, record)
            except Exception as exc:  # a user's hook must not stop paid work
                self._failed(exc)
            else:
                if answer is not None and inspect.isawaitable(answer):
                    self._answer, self.awaited = answer, True
            ended = perf_counter()
            if ended - began >= SLOW_S:
                self._note_slow()
            if ended >= until:
                break

    def _note_slow(self) -> None:
        self._slow += 1
        if self._slow == SLOW_CALLS and not self.awaited:
            self._threaded = self.awaited = True
            logger.warning(
                "hook %s took more than %g s %d times, which holds up everything: from now on it "
                "is called in a thread; make it `async def` to stay on the loop",
                self,
                SLOW_S,
                SLOW_CALLS,
                extra={"action": "hook.slow"},
            )

    async def run(self) -> None:
        """Await an async hook with event after event; returns after ``close``, or when cut."""
        try:
            while True:
                until = perf_counter() + SLICE_S
                while self.waiting and perf_counter() < until:
                    await self._give()
                if self.waiting:
                    await asyncio.sleep(0)
                elif self._closing:
                    return
                else:
                    self._news.clear()
                    await self._news.wait()
        finally:
            self.ended.set()

    async def _give(self) -> None:
        try:
            answer: object = None
            if self._answer is not None:
                answer, self._answer = self._answer, None
            elif self._threaded:
                answer = await asyncio.to_thread(self.hook, *self._heard.popleft())
            else:
                answer = self.hook(*self._heard.popleft())
            if inspect.isawaitable(answer):
                await answer
        except Exception as exc:  # a user's hook must not stop paid work
            self._failed(exc)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(exc)  # nobody cancelled us: something that the hook waited for was

    def _failed(self, error: BaseException) -> None:
        kind = type(error)
        self._failures[kind] += 1
        if self._failures[kind] == 1:
            logger.error(
                "hook %s failed, and goes on being called; its next %s is not told: %s",
                self,
                kind.__name__,
                error,
                exc_info=error,
                extra={"action": "hook.failed"},
            )

    def close(self) -> None:
        """Have ``run`` return once everything is heard."""
        self._closing = True
        self._news.set()

    def ask(self, name: str, record: JobRecord) -> str | None:
        """Return what a sync method of the hook's says of a job, if it has one, at once."""
        method: Callable[[JobRecord], str | None] | None = getattr(self.hook, name, None)
        if method is None:
            return None
        try:
            return method(record)
        except Exception as exc:  # a user's hook must not stop paid work
            self._failed(exc)
            return None

    async def call(self, name: str, *about: object) -> None:
        """Call a method of the hook's besides, if it has one."""
        method: Callable[..., Any] | None = getattr(self.hook, name, None)
        if method is None:
            return
        try:
            answer = await asyncio.to_thread(method, *about) if self._threaded else method(*about)
            if inspect.isawaitable(answer):
                await answer
        except Exception as exc:  # a user's hook must not keep a pipeline from opening or closing
            self._failed(exc)

    def sum_up(self) -> None:
        """Say what it has not heard, and how often it failed."""
        self.dropped += self.waiting
        if isinstance(self._answer, Coroutine):
            self._answer.close()
        if self.dropped:
            logger.warning(
                "hook %s has not heard of %d events",
                self,
                self.dropped,
                extra={"action": "hook.dropped"},
            )
        for kind, times in self._failures.items():
            if times > 1:
                logger.warning(
                    "hook %s failed %d times with %s",
                    self,
                    times,
                    kind.__name__,
                    extra={"action": "hook.failed"},
                )


def _is_async(hook: Hook) -> bool:
    """Whether it surely is; of others it shows when they are called."""
    call = getattr(hook, "__call__", None)  # noqa: B004  # an object's own, which may be async
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call)


class Hooks:
    """Everybody who hears of events; hooks may come and go while the pipeline is open."""

    def __init__(self, hooks: Iterable[Hook], start: Callable[..., object]) -> None:
        self._start, self._called = start, False
        self._listeners: list[Listener] = []
        self._of_jobs: dict[int, list[Listener]] = {}
        self._fresh: dict[Listener, None] = {}  # those of jobs that there is something to tell to
        self._running: set[Listener] = set()
        for hook in hooks:
            self.add(hook)

    def __bool__(self) -> bool:
        return bool(self._listeners or self._of_jobs)

    def add(self, hook: Hook, *, limit: int = LIMIT) -> Listener:
        """Have a hook hear of what happens from now on."""
        listener = Listener(hook, limit=limit)
        self._listeners.append(listener)
        return listener

    def follow(self, job_id: int, hook: Hook) -> None:
        """Have a hook hear of what happens to one job, until it ends or is let go of."""
        self._of_jobs.setdefault(job_id, []).append(Listener(hook))

    def let_go(self, job_id: int) -> None:
        """Note that a job has ended, or is in memory no more: its hooks hear of nothing new."""
        for listener in self._of_jobs.pop(job_id, ()):
            listener.close()

    def remove(self, listener: Listener) -> None:
        """Have it hear of nothing new; an async one still hears what it has not heard."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            listener.close()

    def hear(self, event: Event, record: JobRecord) -> None:
        """Pass an event on; synchronous, and the hooks are called later."""
        for listener in self._listeners:
            listener.hear(event, record)
        for listener in self._of_jobs.get(record.id, ()):
            listener.hear(event, record)
            self._fresh[listener] = None
        if not self._called:
            # Not a coroutine that is woken: that costs more than all the folding.
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._called = False
        if not self.tell(SLICE_S):
            self._called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def tell(self, slice_s: float | None = None) -> bool:
        """Call sync hooks with what they have not heard, and wake the others.

        Returns whether it took less than ``slice_s`` seconds; without it everything is told.
        """
        until = perf_counter() + slice_s if slice_s is not None else float("inf")
        for listener in [*self._listeners, *self._fresh]:
            listener.tell(until)
            if listener.awaited and listener not in self._running and listener.waiting:
                self._running.add(listener)
                self._start(self._run, listener, name=f"asyncpipe hook {listener!r}")
        self._fresh = {each: None for each in self._fresh if each.waiting and not each.awaited}
        return not any(
            each.waiting for each in (*self._listeners, *self._fresh) if not each.awaited
        )

    async def _run(self, listener: Listener) -> None:
        try:
            await listener.run()
        finally:
            self._running.discard(listener)

    def trace_of(self, record: JobRecord) -> str | None:
        """What the first hook with a method ``trace_of`` says of a job, which is kept with it."""
        return next(filter(None, (each.ask("trace_of", record) for each in self._listeners)), None)

    def admitted(self, record: JobRecord) -> None:
        """Tell hooks, in the caller's own context, of a job that a caller waits for."""
        for listener in self._listeners:
            listener.ask("admitted", record)

    async def opened(self, pipeline: object) -> None:
        """Give ``pipeline``, which is open, to the hooks that want it."""
        for listener in self._listeners:
            await listener.call("on_open", pipeline)

    async def aclose(self) -> None:
        """Let every hook hear of everything, within LEAVING_S, and of the end."""
        with anyio.move_on_after(LEAVING_S, shield=True):
            while not self.tell(SLICE_S):
                await anyio.lowlevel.checkpoint()  # everybody else's turn
            for job_id in [*self._of_jobs]:
                self.let_go(job_id)
            for listener in self._listeners:
                listener.close()
            for listener in [*self._running]:
                await listener.ended.wait()
            for listener in self._listeners:
                await listener.call("on_close")
        for listener in self._listeners:
            listener.sum_up()


@asynccontextmanager
async def hearing(hooks: Iterable[Hook]) -> AsyncIterator[Hooks]:
    """Have hooks hear of what is passed on inside, and of the end."""
    async with tasks_apart("asyncpipe hooks") as tasks:
        heard = Hooks(hooks, tasks.start_soon)
        try:
            yield heard
        finally:
            await heard.aclose()
