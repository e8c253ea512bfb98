"""Peers that can be made to fail on cue, which real ones cannot.

`Relay` stands between a client and a real remctld and spoils the bytes on their way.  `ScriptedServer` authenticates
with the real GSS-API and then says what a test has it say.  `SilentServer` takes connections and never answers.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import gssapi

Filter = Callable[[bytes], bytes | None]


class Listener:
    """A TCP server on a free loopback port, with a thread that serves one connection after the other."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.accepted = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self.failure is not None and error is None:
            raise self.failure

    def stop(self) -> None:
        """End everything, and wait for the threads."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        for connection in self._open:
            connection.close()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            self.accepted += 1
            self.serve(connection)

    def _spawn(self, target: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                target(*arguments)
            except OSError:
                pass  # the connection has ended, which is what most tests do to it
            except BaseException as error:
                self.failure = error

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def serve(self, connection: socket.socket) -> None:
        """Do what this double is for."""
        raise NotImplementedError


class SilentServer(Listener):
    """Takes connections and says nothing."""

    def serve(self, connection: socket.socket) -> None:
        """Say nothing."""


class HangingUpServer(Listener):
    """Takes connections and closes them."""

    def serve(self, connection: socket.socket) -> None:
        """Close it."""
        connection.shutdown(socket.SHUT_RDWR)


class Relay(Listener):
    """Carries bytes between clients and a server, through two filters.

    A filter gets what has come and returns what to pass on; None cuts the connection.  `hold()` keeps the server's
    bytes back until `release()`.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.up: Filter = lambda data: data
        self.down: Filter = lambda data: data
        self.flowing = threading.Event()
        self.flowing.set()

    def hold(self) -> None:
        """Keep back what the server says from now on."""
        self.flowing.clear()

    def release(self) -> None:
        """Pass it on again."""
        self.flowing.set()

    def stop(self) -> None:
        """End everything."""
        self.release()
        super().stop()

    def serve(self, connection: socket.socket) -> None:
        """Pump both ways."""
        server = socket.create_connection(("127.0.0.1", self._port))
        self._open.append(server)
        self._spawn(self._pump, connection, server, lambda data: self.up(data))
        self._spawn(self._pump, server, connection, self._held)

    def tunnel(self) -> socket.socket:
        """Return one end of a pair of sockets, at whose other end a connection to the server begins."""
        ours, theirs = socket.socketpair()
        self._open.append(theirs)
        self.serve(theirs)
        return ours

    def _held(self, data: bytes) -> bytes | None:
        self.flowing.wait()
        return self.down(data)

    def _pump(self, source: socket.socket, target: socket.socket, change: Filter) -> None:
        try:
            while data := source.recv(65536):
                changed = change(data)
                if changed is None:
                    break
                target.sendall(changed)
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class Peer:
    """The server's side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._context = gssapi.SecurityContext(usage="accept", creds=gssapi.Credentials(usage="accept"))

    def authenticate(self, flags: int = 0x42) -> None:
        """Do the whole handshake; 0x02 as the flags of our tokens makes it protocol 1's."""
        self.send_token(flags, self.accept())

    def accept(self) -> bytes:
        """Do the handshake up to our last token, and return that one's payload."""
        assert self.receive_token() == (0x51, b"")
        flags, payload = self.receive_token()
        assert flags == 0x42
        answer: bytes = self._context.step(payload)
        assert self._context.complete
        return answer

    def receive(self) -> bytes:
        """Return the next message, in plain."""
        _, payload = self.receive_token()
        return bytes(self._context.unwrap(payload).message)

    def send(self, kind: int, body: bytes = b"", version: int = 2) -> None:
        """Send a message."""
        self.send_token(0x44, self.wrap(bytes([version, kind]) + body))

    def wrap(self, message: bytes, *, encrypt: bool = True) -> bytes:
        """Return a message as the payload of a token."""
        return bytes(self._context.wrap(message, encrypt=encrypt).message)

    def send_output(self, data: bytes, stream: int = 1) -> None:
        """Send an OUTPUT message."""
        self.send(3, struct.pack(">BI", stream, len(data)) + data)

    def send_status(self, status: int) -> None:
        """Send a STATUS message."""
        self.send(4, bytes([status]))

    def send_error(self, code: int, text: bytes) -> None:
        """Send an ERROR message."""
        self.send(5, struct.pack(">II", code, len(text)) + text)

    def sign(self, message: bytes) -> bytes:
        """Return the MIC of a message."""
        return bytes(self._context.get_signature(message))

    def send_token(self, flags: int, payload: bytes) -> None:
        """Send a token as it is."""
        self.socket.sendall(framed(flags, payload))

    def reset(self) -> None:
        """Close the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive_token(self) -> tuple[int, bytes]:
        """Return the flags and the payload of the next token."""
        flags, size = struct.unpack(">BI", self._receive_exactly(5))
        return flags, self._receive_exactly(size)

    def _receive_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data


class ScriptedServer(Listener):
    """Authenticates for real, in the sandbox's realm, and then runs a function with each peer.

    Args:
        script: the function.  The connection stays open at its end, and says nothing more.
        authenticate: whether to do so first; if not, it is left to the script.
    """

    def __init__(self, script: Callable[[Peer], None], *, authenticate: bool = True) -> None:
        super().__init__()
        self._script = script
        self._authenticate = authenticate

    def serve(self, connection: socket.socket) -> None:
        """Run the script on a thread."""
        self._spawn(self._play, connection)

    def _play(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(connection)
        if self._authenticate:
            peer.authenticate()
        self._script(peer)


def framed(flags: int, payload: bytes) -> bytes:
    """Return a token as it travels."""
    return struct.pack(">BI", flags, len(payload)) + payload


@contextlib.contextmanager
def downgrading(port: int) -> Iterator[Relay]:
    """Give a relay that makes a server one of protocol 1: it takes the later protocol's flag off both sides."""

    def strip(data: bytes) -> bytes:
        return bytes([data[0] & ~0x40]) + data[1:] if data[0] in (0x51, 0x42) else data

    def up(data: bytes) -> bytes:
        first = strip(data)
        return first[:5] + strip(first[5:]) if first[0] == 0x11 and len(first) > 5 else first

    with Relay(port) as relay:
        relay.up, relay.down = up, strip
        yield relay
