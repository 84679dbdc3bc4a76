"""A Tornado application, with processes that Tornado forks."""

import asyncio
import sys

import door
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes


class Answer(web.RequestHandler):
    """Any path."""

    def get(self):
        """Answer it."""
        self.set_header("Connection", "close")
        self.write(door.take_turn(self.request.path))


async def main(sockets):
    """Serve until the process ends."""
    HTTPServer(web.Application([(".*", Answer)])).add_sockets(sockets)
    await asyncio.Event().wait()


if __name__ == "__main__":
    bound = bind_sockets(int(sys.argv[1]), "127.0.0.1")
    if int(sys.argv[2]) > 1:
        fork_processes(int(sys.argv[2]))
    asyncio.run(main(bound))
