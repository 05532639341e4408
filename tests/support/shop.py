"""A small Celery app as anybody has one, with our tasks in it by one line."""

from __future__ import annotations

import os

from celery import Celery

from asyncpipe.queues.celery import register

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_BROKER"])
app.conf.worker_prefetch_multiplier = 1
tasks = register(app)
app.conf.beat_schedule = {
    "weekly": {
        "task": "asyncpipe.enqueue",
        "schedule": 1.0,
        "args": (os.environ.get("SHOP_WEEKLY", "weekly.yaml"), ["--max-cost", "20"]),
    }
}


def add(one: int, other: int) -> int:
    return one + other


add_task = app.task(name="shop.add")(add)
