"""From the words of a command line, and from a call's arguments, to checked values."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from remctl.jobs.headless import Code, HeadlessError
from remctl.jobs.headless._options import HELP, LONGEST, MOST, Options, checked, parsed, speaks

JOB = ("-s", "host", "-m", "x")


def options(*words: str) -> Options:
    found = parsed(words)
    assert isinstance(found, Options)
    return found


def refused(*words: str, **arguments: Any) -> str:
    with pytest.raises(HeadlessError) as caught:
        checked(**arguments) if arguments else parsed(words)
    assert caught.value.code is Code.PARAMETER
    return str(caught.value)


class TestWords:
    def test_are_understood_short_and_long(self) -> None:
        short = options("-s", "host:1", "-t", "5", "-u", "me", "-p", "s", "-i", "text", "-m", "x", "-c", "code")
        long = ("--service=host:1", "--timeout=5", "--user=me", "--auth_type=challenge", "--secret=s", "--module", "x")
        assert short == options(*long, "--individual_parameters", "text", "--py_code", "code")
        assert short == options("-shost:1", "-t5", "-ume", "-achallenge", "-ps", "-itext", "-mx", "-ccode")

    def test_may_be_put_together(self) -> None:
        assert options("-vvs", "host", "-vmx").verbosity == 3
        assert options(*JOB, "-vvvv").verbosity == 3
        assert options(*JOB, "-vq") == options(*JOB, "--quiet")

    def test_may_have_values_that_begin_with_a_dash(self) -> None:
        found = options("-s", "host", "-i", "--lock", "-c", "-1", "-t", "-1")
        assert (found.individual_parameters, found.code, found.timeout) == ("--lock", "-1", float("inf"))
        assert options(*JOB, "--individual_parameters", "--x=y").individual_parameters == "--x=y"
        assert options(*JOB, "--individual_parameters=").individual_parameters == ""
        assert options(*JOB, "-i", "").individual_parameters == ""
        assert options(*JOB, "-i=x").individual_parameters == "=x"

    def test_are_utf8_in_every_locale(self) -> None:
        assert options(*JOB, "-i", os.fsdecode("é".encode())).individual_parameters == "é"
        assert "word 5 is no UTF-8" in refused(*JOB, os.fsdecode(b"-i\xff"))

    def test_may_ask_for_help(self) -> None:
        assert parsed(["-h"]) == HELP == parsed(["--help", "-s", ":"])
        assert str(parsed(["--version"])).startswith("remctl-headless ")

    def test_that_are_unknown_are_refused_without_what_may_be_secret(self) -> None:
        for words in (("--secre=swordfish",), ("--quiet=swordfish",), ("swordfish",), ("--", "swordfish"), ("-",)):
            assert "swordfish" not in refused(*JOB, *words)
        assert "no option -x" in refused("-qx")
        assert "module needs a value" in refused("-m")
        assert "individual_parameters" in refused(*JOB, "-i", "swordfish\0")
        assert "swordfish" not in repr(options("-s", "host", "-c", "swordfish", "-i", "swordfish"))

    def test_say_before_they_are_understood_whether_to_complain(self) -> None:
        assert speaks(["-x", "-hv"], terminal=False)
        assert not speaks(["-x", "-mv"], terminal=False)
        assert speaks(["-x"], terminal=True)
        assert not speaks(["-x", "-vq"], terminal=True)


class TestValues:
    @pytest.mark.parametrize(
        ("service", "server"),
        [
            ("host", ("host", 0)),
            ("host.example.org:4373", ("host.example.org", 4373)),
            ("127.0.0.1:1", ("127.0.0.1", 1)),
            ("[::1]", ("::1", 0)),
            ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
            ("bücher.example", ("bücher.example", 0)),
        ],
    )
    def test_a_service(self, service: str, server: tuple[str, int]) -> None:
        found = checked(service=service, module="x")
        assert (found.host, found.port) == server

    @pytest.mark.parametrize(
        "service",
        ["", "::1", "host:", "host:0", "host:65536", "host:x", ":1", "[host]:1", "a b", "h" * 70 + "é", 1, None],
    )
    def test_no_service(self, service: object) -> None:
        assert "service" in refused(service=service, module="x")

    @pytest.mark.parametrize(
        ("text", "limit"), [("0", 0), ("1.5", 1.5), (".5", 0.5), ("-1", float("inf")), ("9" * 400, LONGEST)]
    )
    def test_a_timeout(self, text: str, limit: float) -> None:
        assert options(*JOB, "-t", text).timeout == limit

    @pytest.mark.parametrize("text", ["", "-2", "-1.0", "nan", "inf", "1e3", "1_0", " 1", "٣", "x"])
    def test_no_timeout(self, text: str) -> None:
        assert f"timeout must be seconds, or -1 for no limit: {text!r}" in refused(*JOB, "-t", text)

    @pytest.mark.parametrize("timeout", [True, "5", -2, float("nan"), float("inf")])
    def test_no_timeout_of_a_call(self, timeout: object) -> None:
        assert "timeout" in refused(service="host", module="x", timeout=timeout)

    def test_a_login(self) -> None:
        assert options(*JOB).auth_type == "osuser"
        assert options(*JOB, "-u", "me", "-p", "s").auth_type == "challenge"
        assert "needs a user" in refused(*JOB, "-p", "s")
        assert "needs a secret" in refused(*JOB, "-u", "me", "-a", "challenge")
        assert "'other'" in refused(*JOB, "-a", "other")
        assert "secret is for" in refused(*JOB, "-u", "me", "-a", "osuser", "-p", "s")
        assert "secret must not be empty" in refused(*JOB, "-u", "me", "-p", "")

    def test_something_to_run(self) -> None:
        assert "nothing to run" in refused("-s", "host")
        assert "both" in refused("-s", "host", "-c", "1", "-f", "x")
        assert "module must not be empty" in refused("-s", "host", "-m", "")

    def test_output_needs_a_timeout(self) -> None:
        assert "output needs a timeout" in refused(*JOB, "--output")
        assert options(*JOB, "--output", "-t", "0").output

    def test_a_lock(self) -> None:
        assert options(*JOB).lock is False
        assert options(*JOB, "--lock").lock is True
        assert options(*JOB, "--lock=x").lock == Path("x")
        assert "lock must not be empty" in refused(*JOB, "--lock=")

    def test_a_syslog(self) -> None:
        assert options(*JOB).syslog is None
        assert options(*JOB, "--syslog").syslog == "/dev/log"
        assert options(*JOB, "--syslog=/run/log").syslog == "/run/log"
        assert options(*JOB, "--syslog=[::1]:514").syslog == ("::1", 514)
        for text in ("", "host", "host:", "host:99999"):
            assert "syslog must be" in refused(*JOB, f"--syslog={text}")

    def test_texts_of_a_call(self) -> None:
        assert "module" in refused(service="host", module=5)
        assert "user" in refused(service="host", module="x", user="a\udcffb")
        assert "individual_parameters is no valid text" in refused(service="h", module="x", individual_parameters=5)


class TestAFileOfPython:
    def test_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "x.py").write_bytes("é = 1\r\n".encode())
        assert options("-s", "host", "-f", str(tmp_path / "x.py")).code == "é = 1\r\n"

    def test_may_begin_with_the_mark_of_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "x.py").write_bytes(b"\xef\xbb\xbfprint(1)\n")
        assert options("-s", "host", "-f", str(tmp_path / "x.py")).code == "print(1)\n"

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [("none", "No such file"), ("folder", "is no file"), ("fifo", "is no file"), ("latin", "no UTF-8")],
    )
    def test_is_refused(self, tmp_path: Path, name: str, complaint: str) -> None:
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "latin").write_bytes(b"\xe9")
        assert re.search(f"{name}'.*{complaint}|{complaint}.*{name}'", refused("-s", "h", "-f", str(tmp_path / name)))

    def test_is_refused_when_it_is_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(b" " * (MOST + 1))
        assert "is larger than" in refused("-s", "h", "-f", str(tmp_path / "large"))
