"""A taskiq task on a queue in Redis."""

import os

import door
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(os.environ["DOOR_REDIS"])


@broker.task(task_name="turn")
async def turn(path: str) -> None:
    """Do the work on the loop."""
    door.take_turn(path)
