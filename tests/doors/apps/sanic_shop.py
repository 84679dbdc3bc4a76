"""A Sanic application."""

import door
from sanic import Sanic, text

app = Sanic("shop")


@app.get("/")
@app.get("/<path:path>", name="turn")
async def answer(request, path=""):
    """Answer any path."""
    return text(door.take_turn(path), headers={"Connection": "close"})
