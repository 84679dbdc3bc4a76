"""Ask the other processes of the group, all at once, over their private sockets.

A process that does not answer in time is left out: it may be stuck.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Mapping
from contextlib import suppress

from obsloop.base import clock

MAX_ANSWER = 16 * 1024 * 1024


def ask(sockets: Mapping[int, str], target: str, seconds: float) -> dict[int, bytes]:
    """Send ``GET target`` to the sockets at these paths. Return the bodies of the answers with status 200.

    It takes at most `seconds`, however many there are.
    """
    end = clock.seconds() + seconds
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n".encode()
    received: dict[int, bytearray] = {}
    answers: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector:
        for number, path in sockets.items():
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                sock.connect(path)  # a Unix socket connects at once, or not at all
                sock.send(request)
            except OSError:
                sock.close()
                continue
            received[number] = bytearray()
            selector.register(sock, selectors.EVENT_READ, number)
        while selector.get_map() and (left := end - clock.seconds()) > 0:
            for key, _ in selector.select(left):
                sock: socket.socket = key.fileobj  # type: ignore[no-redef]
                if _is_over(sock, received[key.data]):
                    selector.unregister(sock)
                    sock.close()
                    body = _body(received[key.data])
                    if body is not None:
                        answers[key.data] = body
        for key in list(selector.get_map().values()):
            with suppress(OSError):
                key.fileobj.close()  # type: ignore[union-attr]
    return answers


def ask_for_sockets(path: str, seconds: float) -> dict[str, socket.socket]:
    """Ask one process for the sockets on which the group listens. Return them by address; none without an answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            sock.connect(path)
            text, descriptors, _, _ = socket.recv_fds(sock, 4096, 16)
    except OSError:
        return {}
    found = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for each in found:
        each.set_inheritable(False)
    names = text.decode().split("\n") if text else []
    if len(names) != len(found):
        for each in found:
            each.close()
        return {}
    return dict(zip(names, found, strict=True))


def give_sockets(client: socket.socket, listening: Mapping[str, socket.socket]) -> None:
    """Answer ``ask_for_sockets``: send the names of addresses and their sockets. Never waits."""
    with suppress(OSError):
        client.setblocking(False)
        text = "\n".join(listening).encode()
        if text:
            socket.send_fds(client, [text], [sock.fileno() for sock in listening.values()])


def _is_over(sock: socket.socket, received: bytearray) -> bool:
    """Read what there is. Return whether there is no more to come."""
    try:
        data = sock.recv(262_144)
    except BlockingIOError:
        return False
    except OSError:
        received.clear()
        return True
    received += data
    return not data or len(received) > MAX_ANSWER


def _body(received: bytearray) -> bytes | None:
    head, separator, body = bytes(received).partition(b"\r\n\r\n")
    if not separator or b" 200 " not in head.partition(b"\r\n")[0]:
        return None
    fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
    length = next((value.strip() for name, _, value in fields if name == b"content-length"), b"")
    return body if length.isdigit() and int(length) == len(body) else None
