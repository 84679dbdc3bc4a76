"""Requests for the demo application without an end: the phases of `make demo`, all of them at once.

    python load.py http://demo:8000

An application that is not there yet, or away for a moment, is asked again: this is load, not a test.
"""

import asyncio
import sys
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))  # in the image they lie side by side
from run import PHASES


async def main(url: str) -> None:
    """Ask for each route at its pace, for ever."""
    async with httpx.AsyncClient(base_url=url, timeout=30.0) as client, asyncio.TaskGroup() as group:
        for _, route, pause in PHASES:
            group.create_task(ask(client, route, pause))


async def ask(client: httpx.AsyncClient, route: str, pause: float) -> None:
    """One route: the next request comes whether the last was answered or not, as from many clients."""
    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(answer(client, route))
            await asyncio.sleep(pause)


async def answer(client: httpx.AsyncClient, route: str) -> None:
    """One request. The application's metrics show what goes wrong with it."""
    try:
        await client.get(route)
    except httpx.HTTPError:
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("load: expected the application's URL, such as http://127.0.0.1:8000")
    asyncio.run(main(sys.argv[1]))
