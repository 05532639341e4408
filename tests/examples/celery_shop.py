"""A shop's own Celery app with a task that has pictures made.

    ASYNCPIPE_LEDGER=postgresql://… celery -A celery_shop worker -Q celery,asyncpipe

``register`` adds asyncpipe's tasks to it, in one line; ``order`` is the shop's own, and asks for a
picture of each product that was ordered. However often a task is delivered, a name is bought once.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from asyncpipe.queues.celery import register

BROKER = os.environ.get("ASYNCPIPE_BROKER", "redis://127.0.0.1:6379/0")
MODEL = "black-forest-labs/flux-2-pro/text-to-image"

shop = Celery("shop", broker=BROKER, backend=BROKER)
shop.conf.worker_prefetch_multiplier = 1
tasks = register(shop)


@shop.task(name="shop.order", acks_late=True)  # type: ignore[untyped-decorator]
def order(number: int, products: list[str]) -> list[str]:
    """Have a picture made of each product; returns the names of the jobs."""
    names = [f"order-{number}-{product}" for product in products]
    for name, product in zip(names, products, strict=True):
        job: dict[str, Any] = {"name": name, "model": MODEL, "prompt": f"a photo of {product}"}
        tasks.generate.delay({**job, "width": 64, "height": 64}, "orders")
    return names
