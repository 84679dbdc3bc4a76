"""Peers that are not ours: plain blocking sockets in a thread, which count every byte themselves."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

LIMIT = 5.0


class Peer:
    """One end of one connection, in a thread: what it read and wrote, byte by byte, as the kernel told it."""

    def __init__(self) -> None:
        self.read_bytes = self.written_bytes = 0
        self.go = threading.Event()
        """For a peer that waits to be told."""
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def recv(self, sock: socket.socket, size: int = 1 << 16) -> bytes:
        data = sock.recv(size)
        self.read_bytes += len(data)
        return data

    def send(self, sock: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view:
            n = sock.send(view)
            self.written_bytes += n
            view = view[n:]

    def drain(self, sock: socket.socket) -> None:
        """Read until the other side ends."""
        while self.recv(sock):
            pass


Part = Callable[[Peer, socket.socket], None]


def reset(sock: socket.socket) -> None:
    """Close it so that the other side sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def play(part: Part, sock: socket.socket) -> Peer:
    """Let ``part`` have the socket in a thread, and close it afterwards."""
    peer = Peer()

    def run() -> None:
        try:
            with sock:
                part(peer, sock)
        except BaseException as exc:
            peer.error = exc

    sock.settimeout(LIMIT)
    peer.thread = threading.Thread(target=run, daemon=True)
    peer.thread.start()
    return peer


def join(peer: Peer) -> None:
    """Wait for it; what it raised is raised."""
    assert peer.thread is not None
    peer.thread.join(LIMIT)
    assert not peer.thread.is_alive(), "the peer hangs"
    if peer.error is not None:
        raise peer.error


@contextlib.contextmanager
def listening(part: Part, address="127.0.0.1") -> Iterator[tuple[socket.socket, list[Peer]]]:
    """A listening socket, each of whose connections ``part`` is given in a thread of its own."""
    family = socket.AF_INET if address == "127.0.0.1" else socket.AF_UNIX
    server = socket.socket(family)
    server.bind((address, 0) if family == socket.AF_INET else address)
    server.listen(100)
    peers: list[Peer] = []

    def accept() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            peers.append(play(part, sock))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server, peers
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(LIMIT)
        for peer in peers:
            join(peer)
