"""Atlas Cloud as the tests of the wire use it: one job, its answers, and what errors may show."""

from __future__ import annotations

import traceback

import pytest

from asyncpipe.errors import ProviderError
from asyncpipe.http.client import Timeouts
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.providers.atlas.client import AtlasCloud

KEY = "apikey-0123456789abcdef"
JOB = Job(model="google/imagen4-ultra", prompt="一只猫", name="cat", type=JobType.IMAGE)
BOUGHT = b'{"code":200,"data":{"id":"p1","status":"processing"}}'
DONE = b'{"code":200,"data":{"id":"p1","status":"completed","outputs":["https://h/a.png"]}}'
UNAUTHORIZED = b'{"code":401,"msg":"unauthorized","request_id":"t","data":null}'


def atlas(url: str, **timeouts: float) -> AtlasCloud:
    return AtlasCloud(KEY, base_url=url, timeouts=Timeouts(**timeouts))


def check_clean(error: BaseException) -> None:
    """No key in anything a log or a traceback could show, and no foreign exception on it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error.__dict__)
    assert KEY not in shown


async def submit_error(provider: AtlasCloud) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.submit(JOB)
    check_clean(caught.value)
    return caught.value


async def poll_error(provider: AtlasCloud) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.poll("p1")
    check_clean(caught.value)
    return caught.value
