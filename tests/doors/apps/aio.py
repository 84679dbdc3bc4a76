"""An aiohttp application."""

import sys

import door
from aiohttp import web


async def answer(request):
    """Answer any path."""
    return web.Response(text=door.take_turn(request.path), headers={"Connection": "close"})


app = web.Application()
app.router.add_get("/{path:.*}", answer)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
