"""A secret that is fetched: once, again when it is a day old or looks wrong, with measure."""

from __future__ import annotations

import asyncio

import pytest

from asyncpipe.errors import PollFailed, WebhookRefused
from asyncpipe.testing import run_virtual
from asyncpipe.webhooks import FetchedSecret, sign
from asyncpipe.webhooks.keys import COOL_DOWN_S, KEPT_S
from tests.support.signed import AT, NOW, OTHER, SECRET, STANDARD_BODY


class Told:
    """An API that tells a secret, or fails."""

    def __init__(self) -> None:
        self.secret, self.asked, self.away = SECRET, 0, False

    async def fetch(self) -> str:
        self.asked += 1
        await asyncio.sleep(1)
        if self.away:
            raise PollFailed("no answer")
        return self.secret


async def word(verifier: FetchedSecret, message: str, secret: str = SECRET) -> str:
    try:
        await verifier.verify(sign(secret, message, AT, STANDARD_BODY), STANDARD_BODY, NOW)
    except WebhookRefused as exc:
        return exc.word
    return "right"


def test_it_is_fetched_once_for_all_and_kept_for_a_day() -> None:
    """A replay is known all the while, also over a renewal of the same secret."""

    async def main() -> None:
        told = Told()
        verifier = FetchedSecret(told.fetch)
        words = await asyncio.gather(*[word(verifier, f"m{n}") for n in range(10)])
        assert words == ["right"] * 10
        assert await word(verifier, "m1") == "replayed"
        assert told.asked == 1
        await asyncio.sleep(KEPT_S)
        assert await word(verifier, "m1") == "replayed"
        assert told.asked == 2

    run_virtual(main())


def test_a_new_secret_is_found_and_forgers_make_nobody_ask() -> None:
    """One question a minute, whatever comes."""

    async def main() -> None:
        told = Told()
        verifier = FetchedSecret(told.fetch)
        assert await word(verifier, "m") == "right"
        assert [await word(verifier, f"n{n}", OTHER) for n in range(50)] == ["forged"] * 50
        assert told.asked == 1
        told.secret = OTHER
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(verifier, "n", OTHER) == "right"
        assert told.asked == 2
        assert await word(verifier, "o") == "forged"

    run_virtual(main())


@pytest.mark.parametrize("secret", ["", "whsec_short"])
def test_while_it_cannot_be_had_deliveries_are_to_come_again(secret: str) -> None:
    """Whether the API is away or tells none; and it is not asked at every one."""

    async def main() -> None:
        told = Told()
        told.away, told.secret = not secret, secret
        verifier = FetchedSecret(told.fetch)
        assert [await word(verifier, f"m{n}") for n in range(5)] == ["keys away"] * 5
        assert told.asked == 1
        told.away, told.secret = False, SECRET
        await asyncio.sleep(COOL_DOWN_S)
        assert await word(verifier, "m") == "right"

    run_virtual(main())
