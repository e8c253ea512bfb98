"""What callers may pass in, and what is refused before anything is sent."""

from __future__ import annotations

import array
import enum
import itertools
import math
import os
import signal
import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import remctl
from remctl._arguments import (
    Command,
    check_ccache,
    check_command,
    check_host,
    check_min_protocol,
    check_port,
    check_principal,
    check_source_ip,
    check_timeout,
    check_word,
)
from remctl._limits import MAX_COMMAND_SIZE, MAX_WORDS

HUGE = 10**5000
"""A number with more digits than Python turns into text."""


class Color(int, enum.Enum):
    RED = 1


class Index:
    """A number from a library of numbers."""

    def __index__(self) -> int:
        return 4373

    def __repr__(self) -> str:
        return "Index()"


class Thing:
    def __repr__(self) -> str:
        return "Thing()"


class Essay:
    """An object that describes itself at length."""

    def __repr__(self) -> str:
        return "essay " * 1000


def words(command: object) -> list[bytes]:
    """The words of a command as they would be sent."""
    checked = check_command(command)
    return checked.words


# Names


@pytest.mark.parametrize("host", ["localhost", "a.example.org", "192.0.2.1", "2001:db8::1", "bücher.example", "a b"])
def test_a_host_is_handed_on_as_it_is(host: str) -> None:
    assert check_host(host) == host


def test_a_principal_is_handed_on_as_it_is() -> None:
    assert check_principal("host/a.example.org@EXAMPLE.ORG") == "host/a.example.org@EXAMPLE.ORG"


def test_no_principal_is_the_default_one() -> None:
    assert check_principal(None) is None


NAMES = [("host", check_host), ("principal", check_principal), ("ccache", check_ccache), ("source_ip", check_source_ip)]


@pytest.mark.parametrize(("name", "check"), NAMES)
def test_an_empty_name_is_refused(name: str, check: Callable[[object], object]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must not be empty: ''$"):
        check("")


@pytest.mark.parametrize(("name", "check"), NAMES)
def test_a_name_with_a_nul_is_refused(name: str, check: Callable[[object], object]) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must not contain NUL: 'a\\x00b'$"):
        check("a\0b")


@pytest.mark.parametrize(("name", "check"), NAMES)
@pytest.mark.parametrize("value", [1, 0.5, True, ["localhost"], Thing()])
def test_a_name_that_is_no_text_is_refused(name: str, check: Callable[[object], object], value: object) -> None:
    with pytest.raises(TypeError) as caught:
        check(value)
    assert str(caught.value) == f"{name} must be a str: {value!r}"


@pytest.mark.parametrize(("name", "check"), [NAMES[0], NAMES[1], NAMES[3]])
def test_a_name_in_bytes_is_refused(name: str, check: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a str: b'localhost'$"):
        check(b"localhost")


def test_a_host_is_required() -> None:
    with pytest.raises(TypeError, match=r"^host must be a str: None$"):
        check_host(None)


def test_a_host_that_cannot_be_encoded_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^host ") as caught:
        remctl.remctl("a\udcffb", command=["test"])
    assert "udcff" in str(caught.value)


def test_a_principal_that_cannot_be_encoded_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^principal ") as caught:
        remctl.remctl("localhost", 1, "host/a\udcffb", ["test"])
    assert "udcff" in str(caught.value)


def test_a_long_value_is_shown_cut() -> None:
    with pytest.raises(TypeError, match=r"^host must be a str: essay .*\.\.\.$") as caught:
        check_host(Essay())
    assert len(str(caught.value)) < 120


# Port


@pytest.mark.parametrize(
    ("port", "number"),
    [(0, 0), (1, 1), (4373, 4373), (65535, 65535), ("0", 0), ("4373", 4373), ("04373", 4373), (Index(), 4373)],
)
def test_a_port_is_a_number_or_its_text(port: object, number: int) -> None:
    assert check_port(port) == number


def test_no_port_is_the_default_ports() -> None:
    assert check_port(None) == 0


@pytest.mark.parametrize("port", ["x", "", " 4373", "43 73", "-1", "+1", "0x10", "1.0", "1_000", "٤٣", "²"])
def test_a_port_that_is_no_decimal_text_is_refused(port: str) -> None:
    with pytest.raises(TypeError) as caught:
        check_port(port)
    assert str(caught.value) == f"port must be a number: {port!r}"


@pytest.mark.parametrize("port", [0.5, 4373.0, b"4373", True, False, [4373], Decimal(1), Thing()])
def test_a_port_that_is_no_number_is_refused(port: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_port(port)
    assert str(caught.value) == f"port must be a number: {port!r}"


@pytest.mark.parametrize("port", [-1, 65536, "65536", 2**64, -(2**64)])
def test_a_port_out_of_range_is_refused(port: object) -> None:
    with pytest.raises(ValueError, match=rf"^invalid port number: {port}$"):
        check_port(port)


@pytest.mark.parametrize("port", [HUGE, -HUGE, "9" * 5000], ids=["huge", "negative", "text"])
def test_a_port_of_thousands_of_digits_is_refused_by_name(port: object) -> None:
    with pytest.raises(ValueError, match="port"):
        check_port(port)


@given(st.integers(0, 65535))
def test_every_port_survives_as_number_and_as_text(port: int) -> None:
    assert check_port(port) == check_port(str(port)) == port


# Source address


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0", "::1", "::", "2001:db8::1", "fe80::1%eth0"])
def test_a_source_address_is_ipv4_or_ipv6(ip: str) -> None:
    assert check_source_ip(ip) == ip


def test_no_source_address_is_the_systems_choice() -> None:
    assert check_source_ip(None) is None


@pytest.mark.parametrize("ip", ["bogus", "localhost", "127.0.0.256", "127.1", "::g", "127.0.0.1/8", "[::1]", " ::1"])
def test_a_source_that_is_no_address_is_refused(ip: str) -> None:
    with pytest.raises(ValueError, match=r"^source_ip must be an IPv4 or IPv6 address: ") as caught:
        check_source_ip(ip)
    assert str(caught.value).endswith(repr(ip))


# Ticket cache


@pytest.mark.parametrize("name", ["FILE:/tmp/cc", "KEYRING:persistent:0", "MEMORY:", "/tmp/cc", "relative"])
def test_a_ticket_cache_has_a_name_in_any_form(name: str) -> None:
    assert check_ccache(name) == name


def test_a_ticket_cache_may_be_a_path() -> None:
    assert check_ccache(Path("/tmp/cc")) == "/tmp/cc"


def test_a_ticket_cache_may_be_bytes() -> None:
    assert check_ccache(b"/tmp/cc") == "/tmp/cc"


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_a_ticket_cache_keeps_every_byte_of_its_file_name(name: bytes) -> None:
    checked = check_ccache(name)
    assert checked is not None
    assert os.fsencode(checked) == name


def test_no_ticket_cache_is_the_default_one() -> None:
    assert check_ccache(None) is None


def test_an_empty_ticket_cache_in_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^ccache must not be empty: ''$"):
        check_ccache(b"")


# Time limit


@pytest.mark.parametrize("timeout", [1, 0.5, 1e-9, 10**9, 1e300])
def test_a_time_limit_is_a_number_of_seconds(timeout: float) -> None:
    assert check_timeout(timeout) == timeout


def test_a_time_limit_comes_back_as_float() -> None:
    assert isinstance(check_timeout(2), float)


@pytest.mark.parametrize(
    "timeout", [None, 0, 0.0, -0.0, math.inf, 10**400, HUGE], ids=["None", "0", "0.0", "-0.0", "inf", "10**400", "huge"]
)
def test_none_zero_and_infinity_are_no_limit(timeout: object) -> None:
    assert check_timeout(timeout) is None


@pytest.mark.parametrize("timeout", [-1, -0.5, -1e-300, -math.inf, math.nan, -(10**60)])
def test_a_time_limit_below_zero_or_not_a_number_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be 0 or more: ") as caught:
        check_timeout(timeout)
    assert str(caught.value).endswith(repr(timeout))


@pytest.mark.parametrize("timeout", [-(10**400), -HUGE], ids=["-10**400", "-huge"])
def test_a_huge_time_limit_below_zero_is_refused_by_name(timeout: int) -> None:
    with pytest.raises(ValueError, match=r"^timeout must be 0 or more: "):
        check_timeout(timeout)


@pytest.mark.parametrize("timeout", ["1", "", b"1", True, False, [1], Decimal(1), 1j, Thing()])
def test_a_time_limit_that_is_no_number_is_refused(timeout: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_timeout(timeout)
    assert str(caught.value) == f"timeout must be a number of seconds or None: {timeout!r}"


@given(st.floats() | st.integers())
def test_a_time_limit_is_positive_none_or_refused(timeout: float) -> None:
    try:
        checked = check_timeout(timeout)
    except ValueError:
        assert not timeout >= 0
    else:
        assert checked is None or 0 < checked < math.inf


# Protocol version


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_lowest_protocol_is_1_2_or_3(version: int) -> None:
    assert check_min_protocol(version) == version


@pytest.mark.parametrize("version", [0, 4, -1])
def test_another_protocol_is_refused(version: int) -> None:
    with pytest.raises(ValueError, match=f"^min_protocol must be 1, 2 or 3: {version}$"):
        check_min_protocol(version)


def test_a_protocol_of_thousands_of_digits_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^min_protocol must be 1, 2 or 3: "):
        check_min_protocol(HUGE)


@pytest.mark.parametrize("version", [None, "2", 2.0, True, Thing()])
def test_a_protocol_that_is_no_number_is_refused(version: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_min_protocol(version)
    assert str(caught.value) == f"min_protocol must be a number: {version!r}"


# Words


@pytest.mark.parametrize(
    ("word", "sent"),
    [
        ("hello", b"hello"),
        ("", b""),
        ("grüß", "grüß".encode()),
        ("a\0b", b"a\0b"),
        (b"\xff\0", b"\xff\0"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (array.array("B", [1, 2, 3]), b"\1\2\3"),
        (0, b"0"),
        (-7, b"-7"),
        (10**30, b"1" + 30 * b"0"),
        (0.5, b"0.5"),
        (Path("/etc/hosts"), b"/etc/hosts"),
        (Path(os.fsdecode(b"/tmp/\xff")), b"/tmp/\xff"),
    ],
    ids=repr,
)
def test_a_word_is_sent_as(word: object, sent: bytes) -> None:
    assert words([word]) == [sent]


@pytest.mark.parametrize("word", [b"bytes", 1, 0.5, Path("/etc/hosts")])
def test_a_word_by_itself_is_checked_as_in_a_command(word: object) -> None:
    assert check_word(word, 0) == words([word])[0]


@pytest.mark.parametrize(("word", "sent"), [(signal.SIGTERM, b"15"), (Color.RED, b"1")])
def test_a_number_with_a_name_is_sent_as_decimal_text(word: object, sent: bytes) -> None:
    assert words([word]) == [sent]


def test_text_with_a_name_is_sent_as_its_text() -> None:
    assert words([remctl.OutputType.STATUS]) == [b"status"]


def test_a_number_of_thousands_of_digits_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"command\[1\]"):
        check_command(["test", HUGE])


@pytest.mark.parametrize("word", [None, True, False, [], ["nested"], {"a": 1}, 1j, Decimal(1), Thing(), Ellipsis])
def test_a_word_that_is_an_object_is_refused(word: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_command(["test", word])
    assert str(caught.value) == f"command[1] must be str, bytes, a number or a path: {word!r}"


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^command has a word that cannot be sent as UTF-8: '\\ud800'$"):
        check_command(["test", "\ud800"])


def test_long_text_that_is_no_unicode_is_shown_cut() -> None:
    with pytest.raises(ValueError, match=r"^command ") as caught:
        check_command(["test", "x" * 1000 + "\ud800"])
    assert len(str(caught.value)) < 200


@given(st.binary())
def test_a_file_name_as_python_has_it_arrives_as_the_system_has_it(name: bytes) -> None:
    assert words([name.decode("utf-8", "surrogateescape")]) == [name]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_all_text_is_sent_as_utf_8(command: list[str]) -> None:
    assert words(command) == [word.encode() for word in command]


@given(st.integers())
def test_a_whole_number_is_sent_as_it_is_written(number: int) -> None:
    assert words([number]) == [b"%d" % number]


@given(st.floats(allow_nan=False))
def test_a_float_is_sent_so_that_it_can_be_read_back(number: float) -> None:
    assert float(words([number])[0]) == number


# Commands


@pytest.mark.parametrize(
    "command",
    [["a", "b"], ("a", "b"), iter(["a", "b"]), (word for word in "ab"), {"x": "a", "y": "b"}.values(), map(str, "ab")],
    ids=lambda command: type(command).__name__,
)
def test_a_command_is_a_sequence_or_an_iterator(command: object) -> None:
    assert words(command) == [b"a", b"b"]


@pytest.mark.parametrize(
    "command", [[], (), iter(()), (word for word in "")], ids=lambda command: type(command).__name__
)
def test_an_empty_command_is_refused(command: object) -> None:
    with pytest.raises(ValueError, match=r"^command must not be empty: ") as caught:
        check_command(command)
    assert str(caught.value).endswith(repr(command))


@pytest.mark.parametrize(
    "command",
    [
        "test hello",
        "",
        b"test",
        bytearray(b"test"),
        memoryview(b"test"),
        {"test"},
        frozenset({"test"}),
        {"test": "hello"},
        {"test": "hello"}.keys(),
        None,
        1,
        True,
        Thing(),
    ],
    ids=lambda command: type(command).__name__,
)
def test_what_is_no_sequence_of_words_is_refused(command: object) -> None:
    with pytest.raises(TypeError) as caught:
        check_command(command)
    assert str(caught.value) == f"command must be a sequence or iterator of words: {command!r}"


def test_an_error_of_the_callers_iterator_comes_through() -> None:
    def failing() -> Iterator[str]:
        yield "test"
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match=r"^the caller's own$"):
        check_command(failing())


# The protocol's limits


def test_as_many_words_as_servers_take() -> None:
    assert len(check_command(["w"] * MAX_WORDS).words) == MAX_WORDS


def test_more_words_than_servers_take_are_refused() -> None:
    with pytest.raises(ValueError, match=f"^command has .*{MAX_WORDS + 1} words.* {MAX_WORDS} "):
        check_command(["w"] * (MAX_WORDS + 1))


def test_an_iterator_without_end_is_refused() -> None:
    def endless() -> Iterator[str]:
        for number in itertools.count():
            assert number < 10 * MAX_WORDS, "words are taken from the iterator long after there were too many"
            yield "w"

    with pytest.raises(ValueError, match=f"servers take {MAX_WORDS} "):
        check_command(endless())


def test_a_command_just_below_the_size_that_servers_take() -> None:
    word = bytes(MAX_COMMAND_SIZE - 4 - 4 - 1)
    assert check_command([word]).size == MAX_COMMAND_SIZE - 1


def test_a_command_above_the_size_that_servers_take_is_refused() -> None:
    word = bytes(MAX_COMMAND_SIZE - 4 - 4)
    with pytest.raises(ValueError, match=f"^command has {MAX_COMMAND_SIZE} bytes, .* less than {MAX_COMMAND_SIZE}$"):
        check_command([word])


# The checked form


@given(st.lists(st.binary()))
def test_a_command_holds_its_words(command: list[bytes]) -> None:
    checked = Command(command)
    assert checked.words == command


@given(st.lists(st.binary()))
def test_the_size_is_that_of_the_token_on_the_wire(command: list[bytes]) -> None:
    wire = len(command).to_bytes(4) + b"".join(len(word).to_bytes(4) + word for word in command)
    assert Command(command).size == len(wire)


@pytest.mark.parametrize(
    ("command", "label"),
    [
        ([b"test"], "test"),
        ([b"test", b"hello"], "test hello"),
        ([b"passwd", b"set", b"secret"], "passwd set"),
        ([b"\xff", "ü".encode()], "\\xff ü"),
    ],
)
def test_the_label_shows_two_words_and_no_arguments(command: list[bytes], label: str) -> None:
    assert Command(command).label() == label


# Through the public calls


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket must not even be made."""

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)


BAD: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"host": ""}, ValueError, "host"),
    ({"host": "a\0b"}, ValueError, "host"),
    ({"host": None}, TypeError, "host"),
    ({"port": 0.5}, TypeError, "port"),
    ({"port": "x"}, TypeError, "port"),
    ({"port": -1}, ValueError, "port"),
    ({"port": 65536}, ValueError, "port"),
    ({"principal": ""}, ValueError, "principal"),
    ({"command": ()}, ValueError, "command"),
    ({"command": "test"}, TypeError, "command"),
    ({"command": b"test"}, TypeError, "command"),
    ({"command": ["test", None]}, TypeError, "command"),
    ({"command": ["w"] * (MAX_WORDS + 1)}, ValueError, "command"),
    ({"timeout": -1}, ValueError, "timeout"),
    ({"timeout": math.nan}, ValueError, "timeout"),
    ({"timeout": "1"}, TypeError, "timeout"),
    ({"source_ip": "bogus"}, ValueError, "source_ip"),
    ({"ccache": ""}, ValueError, "ccache"),
    ({"ccache": 1}, TypeError, "ccache"),
    ({"min_protocol": 4}, ValueError, "min_protocol"),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("argument", "error", "name"), BAD, ids=lambda value: str(value)[:30])
def test_the_one_shot_call_refuses_by_name_and_connects_nowhere(
    argument: dict[str, object], error: type[Exception], name: str
) -> None:
    call: Callable[..., object] = remctl.remctl
    with pytest.raises(error, match=name):
        call(**{"host": "localhost", "port": 1, "command": ["test"], **argument})


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("argument", "error", "name"),
    [case for case in BAD if "command" not in case[0] and case[0] != {"host": None}],
    ids=lambda value: str(value)[:30],
)
def test_a_session_refuses_by_name_and_connects_nowhere(
    argument: dict[str, object], error: type[Exception], name: str
) -> None:
    call: Callable[..., object] = remctl.Remctl
    with pytest.raises(error, match=name):
        call(**{"host": "localhost", "port": 1, **argument})
