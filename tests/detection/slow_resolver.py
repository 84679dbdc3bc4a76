"""A name server that takes its time, and the way to make this process ask it: no network, no privileges, glibc only.

It is ``socket.getaddrinfo`` of libc that blocks, in its wait for an answer. The server is a process of its own.
"""

import ctypes
import ipaddress
import socket
import struct
import subprocess
import sys
import time
from typing import Any

DELAY = 0.3


class _Address(ctypes.Structure):
    """``struct sockaddr_in``."""

    _fields_ = [
        ("family", ctypes.c_ushort),
        ("port", ctypes.c_ubyte * 2),
        ("address", ctypes.c_ubyte * 4),
        ("zero", ctypes.c_ubyte * 8),
    ]


class _State(ctypes.Structure):
    """The beginning of ``struct __res_state``, <resolv.h>; each thread has one."""

    _fields_ = [
        ("retrans", ctypes.c_int),
        ("retry", ctypes.c_int),
        ("options", ctypes.c_ulong),
        ("nscount", ctypes.c_int),
        ("nsaddr_list", _Address * 3),
    ]


_servers: list[Any] = []


def use() -> None:
    """Start the server, and have this thread ask it and nobody else for names."""
    server = subprocess.Popen(
        [sys.executable, "-I", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    _servers.append(server)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    libc = ctypes.CDLL(None)
    assert libc.__nss_configure_lookup(b"hosts", b"dns") == 0  # whatever nsswitch.conf says
    assert libc.__res_init() == 0
    find = libc.__res_state
    find.restype = ctypes.POINTER(_State)
    state = find().contents
    state.nscount, state.retrans, state.retry = 1, 30, 1
    address = state.nsaddr_list[0]
    address.family = socket.AF_INET
    address.port[:] = struct.pack("!H", port)
    address.address[:] = ipaddress.IPv4Address("127.0.0.1").packed


def stop() -> None:
    """Stop the server, where one was started."""
    for server in _servers:
        server.kill()


def serve() -> None:
    """Answer every question with 127.0.0.9, late; until half a minute has passed without one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(30)
    print(sock.getsockname()[1], flush=True)
    while True:
        query, client = sock.recvfrom(512)
        time.sleep(DELAY)
        question = query[12 : query.index(b"\0", 12) + 5]
        header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0)
        answer = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + ipaddress.IPv4Address("127.0.0.9").packed
        sock.sendto(header + question + answer, client)


if __name__ == "__main__":
    serve()
