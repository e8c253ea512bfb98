"""Takes the C part through its paths, for valgrind to watch: `make test-memory`.

Runs inside a `remctl-sandbox`, which valgrind does not watch.  Each function is one path; what comes back is checked
too, since a wrong answer can be the sign of wrong memory.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

import remctl
from remctl.acl import Acl

HOST = os.environ["REMCTL_SANDBOX_HOST"]
PORT = int(os.environ["REMCTL_SANDBOX_PORT"])
PRINCIPAL = os.environ["REMCTL_SANDBOX_PRINCIPAL"]


def expect(error: type[Exception], call: Callable[[], object]) -> None:
    """Check that a call raises that error."""
    try:
        answer = call()
    except error:
        return
    raise AssertionError(f"no {error.__name__}, but {answer!r}")


def one_shot() -> None:
    """One call with output, one with error output, status and no output."""
    assert remctl.remctl(HOST, PORT, PRINCIPAL, ["example", "hello"]).stdout == b"hello world\n"
    answer = remctl.remctl(HOST, PORT, command=["example", "no-such"])
    assert (answer.stdout, answer.status) == (None, 64)
    assert answer.stderr


def session() -> None:
    """Several commands and keep-alives over a session that is opened twice."""
    with remctl.Remctl(HOST, PORT) as client:
        for number in range(5):
            assert client.run(["example", "echo", number, b"", "\N{SNOWMAN}"]).status == 0
        client.noop()
        assert client.run(["example", "status", 3]).status == 3
        client.open(HOST, PORT, PRINCIPAL)
        assert client.run(["example", "count", 100]).stderr == b"counted to 100\n"


def tokens() -> None:
    """An answer token by token, whole, and left in the middle; more output than is collected at once."""
    with remctl.Remctl(HOST, PORT) as client:
        client.command(["example", "count", 3])
        while client.output().type != remctl.OutputType.STATUS:
            pass
        assert client.output().type == remctl.OutputType.DONE
        assert sum(len(token.output or b"") for token in client.stream(["example", "bytes", 300_000])) == 300_000
        assert len(client.run(["example", "bytes", 3_000_000]).stdout) == 3_000_000
        next(client.stream(["example", "bytes", 3_000_000]))


def large_command() -> None:
    """A command of a megabyte, which the socket does not take at once, and comes back."""
    text = os.urandom(1 << 20)
    with remctl.Remctl(HOST, PORT) as client:
        assert client.run(["example", "cat", text]).stdout == text


def small_buffer() -> None:
    """Tokens that are larger than the socket's buffer."""
    with remctl.Remctl(HOST, PORT) as client:
        with socket.socket(fileno=os.dup(client.fileno())) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        assert len(client.run(["example", "bytes", 1_000_000]).stdout) == 1_000_000


def time_limit() -> None:
    """Time limits that pass in mid-command: while waiting, in mid-output, and in mid-sending."""
    client = remctl.Remctl(HOST, PORT)
    expect(remctl.RemctlTimeoutError, lambda: client.run(["example", "sleep", 5], timeout=0.2))
    expect(remctl.RemctlNotOpenedError, lambda: client.run(["example", "hello"]))
    client.open(HOST, PORT)
    expect(remctl.RemctlTimeoutError, lambda: client.run(["example", "bytes", 1 << 40], timeout=0.3))
    for limit in (0.0001, 0.001, 0.01):
        with contextlib.suppress(remctl.RemctlTimeoutError):
            client.open(HOST, PORT)
            client.run(["example", "cat", bytes(1 << 20)], timeout=limit)
        with contextlib.suppress(remctl.RemctlTimeoutError):
            remctl.Remctl(HOST, PORT, timeout=limit)


def strange_servers() -> None:
    """A server that accepts and says nothing, one that hangs up at once, and some that speak something else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def call() -> object:
            return remctl.remctl("127.0.0.1", port, PRINCIPAL, ["a"], timeout=3)

        def answer(text: bytes) -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(text)

        expect(remctl.RemctlTimeoutError, call)
        server.accept()[0].close()
        for text, error in (
            (b"", remctl.RemctlConnectionError),
            (b"SSH-2.0-OpenSSH_9.2\r\n", remctl.RemctlProtocolError),
            (b"\x40\xff\xff\xff\xff", remctl.RemctlProtocolError),
            (b"\x41\x00\x00\x00\x05ab", remctl.RemctlProtocolError),
        ):
            thread = threading.Thread(target=answer, args=(text,))
            thread.start()
            expect(error, call)
            thread.join()


def closed_by_another_thread() -> None:
    """A session that is closed while a call waits for output."""
    client = remctl.Remctl(HOST, PORT)
    closer = threading.Timer(0.5, client.close)
    closer.start()
    expect(remctl.RemctlNotOpenedError, lambda: client.run(["example", "sleep", 5]))
    closer.join()
    client.open(HOST, PORT)


def dropped() -> None:
    """A session that nobody closes, with an answer on its way."""
    client = remctl.Remctl(HOST, PORT)
    client.command(["example", "count", 1000])
    del client
    gc.collect()


def many_threads() -> None:
    """Threads that share one session, and threads that have one each."""
    client = remctl.Remctl(HOST, PORT)
    calls: list[Callable[[], object]] = [
        lambda: client.run(["example", "hello"]),
        lambda: remctl.remctl(HOST, PORT, command=["example", "bytes", 100_000]),
    ]
    threads = [threading.Thread(target=call) for call in calls * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()


def failures() -> None:
    """Name, connection, authentication, ticket cache; a command that the server refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    expect(remctl.RemctlConnectionError, lambda: remctl.remctl("no-such-host.invalid", PORT, None, ["a"], timeout=20))
    expect(remctl.RemctlConnectionError, lambda: remctl.remctl("127.0.0.1", free, None, ["a"]))
    expect(remctl.RemctlAuthenticationError, lambda: remctl.remctl(HOST, PORT, "host/wrong.example.org", ["a"]))
    expect(remctl.RemctlAuthenticationError, lambda: remctl.Remctl(HOST, PORT, ccache="/no/such/cache"))
    expect(remctl.RemctlCommandError, lambda: remctl.remctl(HOST, PORT, None, ["no-such", "command"]))
    with remctl.Remctl(HOST, PORT) as client:
        expect(remctl.RemctlCommandError, lambda: client.run(["no-such", "command"]))
        assert client.run(["example", "hello"]).stdout == b"hello world\n"


def acls() -> None:
    """Regular expressions that match, do not, and are none; groups that have somebody, do not, and are unknown."""
    for number in range(50):
        assert Acl(f"regex:^user{number}@").allows(f"user{number}@EXAMPLE.ORG")
        assert not Acl("regex:^[[:digit:]]+@").allows("user@EXAMPLE.ORG")
        expect(ValueError, lambda: Acl("regex:("))
    for group in ("daemon", "no-such-group"):
        assert not Acl(f"localgroup:{group}").allows("nobody@EXAMPLE.ORG")


PATHS = (
    one_shot,
    session,
    tokens,
    large_command,
    small_buffer,
    time_limit,
    strange_servers,
    closed_by_another_thread,
    dropped,
    many_threads,
    failures,
    acls,
)


def main() -> None:
    """Run every path, and give what was left behind the time to end."""
    for path in PATHS:
        begin = time.perf_counter()
        path()
        sys.stdout.write(f"{path.__name__}: {time.perf_counter() - begin:.1f} s\n")
        sys.stdout.flush()
    time.sleep(2)


if __name__ == "__main__":
    main()
