"""The observed application: an ordinary FastAPI program that knows nothing of obsloop.

Three routes, three ways to spend a request: waiting (which leaves the loop free), computing (which takes the loop's
time in small pieces) and blocking (which stops everybody else, and is what people look for).
"""

import asyncio
import hashlib
import time

from fastapi import FastAPI

app = FastAPI()


@app.get("/wait")
async def wait(seconds: float = 0.25) -> dict[str, str]:
    """Waits, as for a database: the loop does other things meanwhile."""
    await asyncio.sleep(seconds)
    return {"did": f"waited {seconds} s"}


@app.get("/compute")
async def compute() -> dict[str, str]:
    """Computes for some milliseconds on the loop: fine once, felt when it is asked for often."""
    digest = b"obsloop"
    for _ in range(12_000):
        digest = hashlib.sha256(digest).digest()
    return {"did": f"computed {digest.hex()[:8]}"}


@app.get("/block")
async def block(seconds: float = 0.4) -> dict[str, str]:
    """Blocks the loop: a plain `time.sleep`, as a forgotten synchronous client would."""
    time.sleep(seconds)  # the mistake is the point
    return {"did": f"blocked for {seconds} s"}
