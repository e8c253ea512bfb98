"""What callers pass in, before anything is sent: hosts, options, and what errors stand for."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import remctl
import remctl.aio
from remctl import RemctlAuthenticationError, RemctlCommandError, RemctlConnectionError, RemctlError, RemctlTimeoutError
from remctl.fanout import NOT_STARTED, Host, HostState
from remctl.fanout._classify import is_shortage, state_of
from remctl.fanout._hosts import Hosts, host_of
from remctl.fanout._options import Options, check
from remctl.security import Credentials


def options(hosts: Any = ("a",), **given: Any) -> Options:
    return check(hosts, ["x"], given)[1]  # type: ignore[arg-type]


class TestHost:
    @pytest.mark.parametrize(
        ("named", "host"),
        [
            ("a", Host("a")),
            ("a.example.org", Host("a.example.org")),
            ("a:4444", Host("a", 4444)),
            ("a:0", Host("a", 0)),
            ("192.0.2.1", Host("192.0.2.1")),
            ("192.0.2.1:44", Host("192.0.2.1", 44)),
            ("::1", Host("::1")),
            ("2001:db8::1:4444", Host("2001:db8::1:4444")),
            ("[::1]", Host("::1")),
            ("[::1]:4444", Host("::1", 4444)),
            (Host("a:b", 5, "p", ["x"]), Host("a:b", 5, "p", ["x"])),
        ],
    )
    def test_is_what_the_caller_means(self, named: Any, host: Host) -> None:
        assert host_of(named) == host

    @pytest.mark.parametrize(
        ("named", "error"),
        [
            ("", "host must not be empty"),
            (":5", "host must not be empty"),
            ("a:", "a host's port must be a number: 'a:'"),
            ("a:b", "a host's port must be a number: 'a:b'"),
            ("a:-1", "a host's port must be a number"),
            ("a:99999", "invalid port number: 99999"),
            ("[::1", "a host in brackets must be"),
            ("[::1]4444", "a host in brackets must be"),
            ("[::1]:", "a host's port must be a number"),
            ("a\0b", "must not contain NUL"),
            (b"a", "a host must be a str or a remctl.fanout.Host: b'a'"),
            (None, "a host must be a str or a remctl.fanout.Host: None"),
            (("a", 5), "a host must be a str or a remctl.fanout.Host"),
            (Host(""), "host must not be empty"),
            ("a\n", "a host's name must not have spaces, line ends or control characters: 'a\\n'"),
            ("a b:5", "must not have spaces"),
            (Host("a\x1b[31m"), "control characters: 'a\\x1b[31m'"),
        ],
    )
    def test_that_makes_no_sense_is_an_error(self, named: Any, error: str) -> None:
        with pytest.raises((TypeError, ValueError)) as caught:
            host_of(named)
        assert error in str(caught.value)

    def test_is_a_key_whatever_its_command(self) -> None:
        assert {Host("a", command=["x"]): 1}[Host("a", command=["x"])] == 1


class TestHosts:
    @pytest.mark.parametrize(
        ("first", "second", "repeated"),
        [
            ("a", "a", True),
            ("a", "A", True),
            ("a.example.org", "a.EXAMPLE.org.", True),
            ("a", "a:4444", False),
            ("a", "a:7", True),
            ("a", Host("a"), True),
            ("a", Host("a", command=["y"]), False),
            (Host("a", command=["y"]), Host("A", command=[b"y"]), True),
            ("a", Host("a", principal="p"), True),
            ("::1", "[0:0:0::0001]", True),
            ("::1", "::2", False),
            ("192.0.2.1", "192.0.2.1", True),
            ("a1", "a2", False),
        ],
    )
    def test_named_twice_are_the_same_if_name_port_and_command_are(
        self, first: Any, second: Any, repeated: bool
    ) -> None:
        hosts, _ = check([first, second], ["x"], {"port": 7})
        assert [target.repeated for target in hosts] == [False, repeated]
        hosts, _ = check([first, second], ["x"], {"duplicates": True})
        assert [target.repeated for target in hosts] == [False, False]

    def test_have_what_the_run_has_where_they_have_nothing(self) -> None:
        named = ["a", Host("b", 9, "host/b", ["own"])]
        one, other = check(named, ["x"], {"port": "7", "principal": "host/all"})[0]
        assert (one.index, one.port, one.principal, one.command.words) == (0, 7, "host/all", [b"x"])
        assert (other.index, other.port, other.principal, other.command.words) == (1, 9, "host/b", [b"own"])

    def test_without_any_command_are_an_error(self) -> None:
        hosts, _ = check([Host("a", command=["x"]), "b"], None, {})
        assert next(hosts).command.words == [b"x"]
        with pytest.raises(ValueError, match="the run has no command, and the host names none"):
            next(hosts)

    def test_are_counted_where_they_can_be(self) -> None:
        assert check(["a", "b"], ["x"], {})[0].total == 2
        assert check({"a": 1}, ["x"], {})[0].total == 1
        assert check(iter("ab"), ["x"], {})[0].total is None

    def test_are_not_taken_before_they_are_needed(self) -> None:
        taken: list[int] = []

        def hosts() -> Iterator[str]:
            taken.append(1)
            yield "a"

        check(hosts(), ["x"], {})
        remctl.run_many(hosts(), ["x"])
        remctl.aio.run_many(hosts(), ["x"])
        assert not taken

    @pytest.mark.parametrize("hosts", ["a", b"a", Host("a"), 5, None])
    def test_that_are_no_iterable_of_hosts_are_an_error(self, hosts: Any) -> None:
        with pytest.raises(TypeError, match="hosts must be an iterable of hosts"):
            Hosts(hosts, command=None, port=0, principal=None, duplicates=False)


async def coroutine(*_: object) -> None:
    raise AssertionError


WRONG: dict[str, list[Any]] = {
    "port": ["x", -1, 65536, 1.5],
    "principal": ["", 5],
    "running": [0, -1, "5", 1.5, None, True],
    "sockets": [0, "5", True],
    "handshakes": [0, None],
    "starts": [0, -1.0, "5", True, float("nan"), float("inf")],
    "connect_timeout": [-1, "5", True, float("nan")],
    "timeout": [-1, "5"],
    "deadline": [-1, "5"],
    "retries": [-1, 1.5, None, False],
    "retry_on": ["refused", 5, ["no-such-state"], ["ok"], ["cancelled"], {"skipped"}],
    "backoff": [-1, "5", True, float("nan"), float("inf"), None],
    "max_fail": [0, -1, 1.5, "10", "0%", "101%", "nan%", "inf%", "x%", "%", "10%%", True],
    "canary": [0, "1"],
    "batch": [0, "1"],
    "pause": [-1, None],
    "ordered": [1, None],
    "max_output": [-1, 1.5, None],
    "before_send": [5, print],
    "on_output": [5, "print", coroutine],
    "duplicates": [1],
    "credentials": ["cache"],
    "ccache": ["", 5],
    "source_ip": ["localhost", 5],
    "min_protocol": [0, 4, "2"],
    "executor": [5, object()],
    "shard": [0, None],
}


class TestOptions:
    @pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
    def test_that_make_no_sense_are_an_error_that_names_them(self, name: str, value: Any) -> None:
        named = "port number" if name == "port" and isinstance(value, int) else name
        for make in (remctl.run_many, remctl.aio.run_many):
            with pytest.raises((TypeError, ValueError), match=named):
                make(["a"], ["x"], **{name: value})

    def test_are_all_checked(self) -> None:
        assert WRONG.keys() == set(Options.__dataclass_fields__) - {"command"}

    def test_that_nobody_knows_are_an_error(self) -> None:
        with pytest.raises(TypeError, match="run_many\\(\\) has no argument 'fanout'"):
            remctl.run_many(["a"], ["x"], fanout=5)  # type: ignore[call-arg]

    def test_command_is_checked_as_anywhere(self) -> None:
        for wrong in ("x", [], [None]):
            with pytest.raises((TypeError, ValueError), match="command"):
                remctl.run_many(["a"], wrong)  # type: ignore[arg-type]

    def test_are_what_the_documentation_says(self) -> None:
        found = options()
        assert (found.running, found.sockets, found.handshakes) == (64, 64, 32)
        assert (found.connect_timeout, found.timeout, found.deadline) == (10.0, None, None)
        assert (found.retries, found.retry_on, found.backoff) == (1, NOT_STARTED, 0.5)
        assert found.max_output == 1024 * 1024
        assert options(running=5).sockets == 5
        assert options(timeout=0).timeout is None
        assert options(retry_on=["timeout"]).retry_on == {HostState.TIMEOUT}

    @pytest.mark.parametrize(("text", "number"), [("10%", 5), ("1%", 1), ("100%", 50), ("0.1%", 1), ("33.3 %", 17)])
    def test_a_percentage_is_of_the_hosts(self, text: str, number: int) -> None:
        assert options(["a"] * 50, max_fail=text).max_fail == number

    def test_a_percentage_is_not_rounded_by_the_way(self) -> None:
        assert options(["a"] * 10_000, max_fail="0.07%").max_fail == 7
        assert options(["a"] * 10_000, max_fail="0.0701%").max_fail == 8

    def test_a_percentage_needs_hosts_that_can_be_counted(self) -> None:
        with pytest.raises(ValueError, match="max_fail can be a percentage only of hosts that can be counted"):
            options(iter("abc"), max_fail="10%")

    def test_two_sources_of_tickets_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="credentials and ccache exclude each other"):
            options(credentials=Credentials.default(), ccache="MEMORY:x")

    def test_pickle(self) -> None:
        found = options(retry_on={"lost-after-send"}, ccache="MEMORY:x")
        again = pickle.loads(pickle.dumps(found))
        assert again.retry_on == {HostState.LOST}
        assert again.command.words == [b"x"]


def connection(number: int | None, **evidence: Any) -> RemctlConnectionError:
    return RemctlConnectionError("no connection", errno=number, **evidence)


class TestStates:
    @pytest.mark.parametrize(
        ("error", "state"),
        [
            (RemctlCommandError("no", sent=True), "denied"),
            (RemctlCommandError("no"), "denied"),
            (connection(errno.ECONNREFUSED), "refused"),
            (connection(errno.EHOSTUNREACH), "refused"),
            (connection(errno.ECONNRESET), "refused"),
            (connection(None), "refused"),
            (connection(errno.ETIMEDOUT), "connect-timeout"),
            (connection(errno.ECONNRESET, sent=True), "lost-after-send"),
            (connection(errno.ETIMEDOUT, sent=True), "lost-after-send"),
            (RemctlConnectionError("unknown host: no"), "dns"),
            (RemctlConnectionError("the name service cannot be asked: no", errno=5), "dns"),
            (RemctlTimeoutError("late"), "connect-timeout"),
            (RemctlTimeoutError("late", sent=True), "timeout"),
            (RemctlAuthenticationError("no"), "auth"),
            (RemctlAuthenticationError("no", sent=True), "lost-after-send"),
            (remctl.RemctlProtocolError("what"), "protocol"),
            (remctl.RemctlProtocolError("what", sent=True), "lost-after-send"),
            (RemctlError("no thread"), "refused"),
            (RemctlError("what", sent=True), "lost-after-send"),
            (remctl.RemctlNotOpenedError("closed", sent=True), "lost-after-send"),
        ],
    )
    def test_of_an_error(self, error: RemctlError, state: str) -> None:
        assert state_of(error) == state

    def test_are_named_as_the_sessions_name_them(self) -> None:
        from remctl._endpoints import unknown_host

        assert state_of(unknown_host("Name or service not known")) == "dns"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
    def test_of_this_machine_are_a_shortage(self, number: int) -> None:
        assert is_shortage(connection(number))
        assert not is_shortage(connection(number, sent=True))
        error = RemctlAuthenticationError("no")
        assert not is_shortage(error)
        error.__cause__ = OSError(number, "no")
        assert is_shortage(error)
        assert not is_shortage(connection(errno.ECONNREFUSED))


class TestResult:
    def test_without_a_status_is_never_a_success(self) -> None:
        from remctl.fanout import HostResult

        with pytest.raises(RemctlError, match="there is no exit status: lost-after-send"):
            HostResult("a", HostState.LOST).check()
        assert not HostResult("a", HostState.LOST).ok
