"""A Celery task that runs a coroutine, as most do: with `asyncio.run`."""

import asyncio
import os

import door
from celery import Celery

app = Celery("shop", broker=os.environ["DOOR_REDIS"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, task_ignore_result=True)


async def refresh(path):
    """Do the work on the loop."""
    door.take_turn(path)


@app.task(name="turn")
def turn(path):
    """Do the work."""
    asyncio.run(refresh(path))
