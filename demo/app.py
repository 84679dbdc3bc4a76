"""Serve the demo's application: an ordinary FastAPI program that knows nothing of obsloop.

Its three routes spend a request's time in three ways: waiting, which leaves the loop free; computing, which takes the
loop's time in small pieces; and blocking, which stops all other requests.
"""

import asyncio
import hashlib
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/wait")
async def wait(seconds: float = 0.25) -> dict[str, str]:
    """Wait, as for a database: the loop does other things meanwhile."""
    await asyncio.sleep(seconds)
    return {"did": f"waited {seconds} s"}


@app.get("/compute")
async def compute() -> dict[str, str]:
    """Compute for some milliseconds on the loop: harmless once, but not when many requests do it."""
    digest = b"obsloop"
    for _ in range(4_000):
        digest = hashlib.sha256(digest).digest()
    return {"did": f"computed {digest.hex()[:8]}"}


@app.get("/block")
async def block(seconds: float = 0.4) -> dict[str, str]:
    """Block the loop with a plain `time.sleep`, as a forgotten synchronous client would."""
    time.sleep(seconds)  # the mistake is the point
    return {"did": f"blocked for {seconds} s"}
