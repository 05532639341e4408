"""More requests than connections: who waits holds next to nothing, and was surely not sent."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncpipe.errors import NotSent
from asyncpipe.http.client import _POOL, HttpAnswer, HttpClient, Timeouts
from asyncpipe.testing import run_virtual


class Slow(HttpClient):
    """Every request takes ``takes_s``; counts those that are under way at once."""

    takes_s = 1.0
    under_way = peak = sent = 0

    async def _exchange(self, *arguments: Any, **options: Any) -> HttpAnswer:
        self.under_way += 1
        self.sent += 1
        self.peak = max(self.peak, self.under_way)
        await asyncio.sleep(self.takes_s)
        self.under_way -= 1
        return HttpAnswer(status=200, headers={}, body=b"{}")


def client(**options: Any) -> Slow:
    return Slow("http://127.0.0.1:1/api/v1", headers={}, **options)


def test_never_more_requests_than_connections() -> None:
    """A burst of polls waits outside the HTTP library; all are answered."""

    async def main() -> tuple[int, int]:
        async with client() as slow:
            await asyncio.gather(*(slow.get("/x") for _ in range(5 * _POOL)))
            return slow.peak, slow.sent

    assert run_virtual(main()) == (_POOL, 5 * _POOL)


def test_a_submit_that_gets_no_connection_in_time_was_not_sent() -> None:
    """It says so, costs nothing, and is not unknown."""

    async def main() -> list[Any]:
        async with client(timeouts=Timeouts(connect_s=15.0)) as slow:
            slow.takes_s = 20.0
            posts = [slow.post("/x", {}) for _ in range(_POOL + 3)]
            found = await asyncio.gather(*posts, return_exceptions=True)
            assert slow.sent == _POOL
            await slow.post("/x", {})  # and places are free again
            return [one for one in found if isinstance(one, BaseException)]

    refused = run_virtual(main())
    assert len(refused) == 3
    assert all(isinstance(one, NotSent) and "in time" in str(one) for one in refused)
