"""Which hosts a command line names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.programs import pyremctl
from remctl.cli._targets import Named, TargetError, find, label
from remctl.fanout import Host
from remctl.fanout._hosts import host_of


def names(**members: object) -> list[str]:
    return [label(host) for host in find(Named(**members))]  # type: ignore[arg-type]


class TestSets:
    def test_are_unfolded_in_their_order(self) -> None:
        assert names(nodes=["n[8-10],b", "a"]) == ["b", "n8", "n9", "n10", "a"]
        assert names(nodes=["n[1-2]-ib[0-1]"]) == ["n1-ib0", "n1-ib1", "n2-ib0", "n2-ib1"]
        assert names(nodes=["n[08-10]"]) == ["n08", "n09", "n10"]

    def test_are_expressions(self) -> None:
        assert names(nodes=["n[1-5]!n[2-3]"]) == ["n1", "n4", "n5"]
        assert names(nodes=["n[1-5]&n[4-9]"]) == ["n4", "n5"]

    def test_may_have_ports_and_addresses(self) -> None:
        assert find(Named(nodes=["127.0.0.[1-2]:4444", "[::1]:17", "[fe80::1]", "2001:db8::[1-2]"])) == [
            Host("127.0.0.1", 4444),
            Host("127.0.0.2", 4444),
            Host("::1", 17),
            Host("fe80::1"),
            Host("2001:db8::1"),
            Host("2001:db8::2"),
        ]

    @pytest.mark.parametrize("text", ["n[1-", "n[3-1]", "a,,b", "n]", "n[1-2", "n[a-b]"])
    def test_that_make_no_sense_are_refused(self, text: str) -> None:
        with pytest.raises(TargetError, match=r"the node set .* makes no sense"):
            names(nodes=[text])

    @pytest.mark.parametrize(
        "text", ["../x", "a b", "a/b", "a\\b", "n1\x1b[31m", "n\n1", "\u202eevil", "h:port", "[::1"]
    )
    def test_names_that_are_none_are_refused_without_being_shown_raw(self, text: str) -> None:
        with pytest.raises(TargetError) as caught:
            names(nodes=[text])
        assert "\x1b" not in str(caught.value)
        assert "\u202e" not in str(caught.value)

    @pytest.mark.parametrize(
        "text",
        [
            "n[1-999999999]",
            "[1-99999]-[1-99999]",
            "n[1-600000],m[1-600000]",
            "n[-999999999-0]",
            "n[1 - 999999999/2, 7]",
            "@rack[1-9999999999999999999999]",
            "a!n[1-999999999]",
        ],
    )
    def test_that_are_beyond_measure_are_refused_before_they_are_made(self, text: str) -> None:
        with pytest.raises(TargetError, match=r"has more than 1,000,000 hosts"):
            names(nodes=[text])
        with pytest.raises(TargetError, match=r"has more than 1,000,000 hosts"):
            names(nodes=["a"], without=[text])

    def test_with_large_numbers_are_counted_and_not_measured(self) -> None:
        assert names(nodes=["n[9999998-9999999/1]"]) == ["n9999998", "n9999999"]
        assert names(nodes=["n[0-9000000/4500000]"]) == ["n0", "n4500000", "n9000000"]

    def test_without_a_host_are_refused(self) -> None:
        with pytest.raises(TargetError, match=r"there is no host.*-x"):
            names(nodes=["n[1-3]"], without=["n[1-9]"])


class TestLeavingOut:
    def test_wins_over_naming(self) -> None:
        assert names(nodes=["n[1-4]"], without=["n2", "n4,x"]) == ["n1", "n3"]

    def test_without_a_port_is_for_every_port(self) -> None:
        assert names(nodes=["n1:1", "n1:2", "n2:1"], without=["N1."]) == ["n2:1"]
        assert names(nodes=["n1:1", "n1:2", "n2:1"], without=["n1:2"]) == ["n1:1", "n2:1"]

    def test_a_host_named_twice_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        assert names(nodes=["a", "b", "A.", "[::1]", "0::1"]) == ["a", "b", "::1"]
        assert "0::1" in caplog.text
        assert "named more than once" in caplog.text

    def test_a_host_named_twice_may_be_wanted_twice(self) -> None:
        assert names(nodes=["a", "a"], duplicates=True) == ["a", "a"]

    def test_some_may_be_picked(self) -> None:
        picked = names(nodes=["n[1-100]"], pick=10)
        assert len(set(picked)) == 10
        assert picked == [name for name in names(nodes=["n[1-100]"]) if name in picked]
        assert names(nodes=["n[1-3]"], pick=10) == ["n1", "n2", "n3"]
        assert {tuple(names(nodes=["n[1-100]"], pick=10)) for _ in range(5)} != {tuple(picked)}


class TestFiles:
    def test_have_names_and_sets_and_comments(self, tmp_path: Path) -> None:
        path = tmp_path / "hosts"
        path.write_text("z  # the last letter\n\n# nothing\nn[1-3] b:7\r\n[::1]:8\na")
        assert names(hostfiles=[str(path)]) == ["z", "n1", "n2", "n3", "b:7", "[::1]:8", "a"]

    def test_may_be_standard_input(self) -> None:
        program = "from remctl.cli._targets import *; print(len(find(Named(hostfiles=['-']))))"
        hosts = "".join(f"host-{number}\n" for number in range(20_000))
        assert subprocess.check_output([sys.executable, "-c", program], input=hosts, text=True) == "20000\n"

    def test_that_are_not_there_are_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="cannot be read from /nowhere: No such file"):
            names(hostfiles=["/nowhere"])
        with pytest.raises(TargetError, match="Is a directory"):
            names(hostfiles=[str(tmp_path)])

    @pytest.mark.parametrize("line", [b"a\x1b[2Jb", b"../../etc/passwd", b"\xff\xfe", b"a\x00b", b"n[1-", b"h:99999"])
    def test_with_a_bad_line_are_refused_with_its_number(self, tmp_path: Path, line: bytes) -> None:
        path = tmp_path / "hosts"
        path.write_bytes(b"good\n" + line + b"\n")
        with pytest.raises(TargetError, match=rf"{path}, line 2: ") as caught:
            names(hostfiles=[str(path)])
        assert str(caught.value).isprintable()

    @given(st.binary(max_size=40))
    def test_nothing_that_controls_a_terminal_becomes_a_host(self, data: bytes) -> None:
        for word in data.decode("utf-8", "backslashreplace").split():
            try:
                found = names(nodes=[word])
            except TargetError:
                continue
            assert all(name.isprintable() and "/" not in name for name in found)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function that writes ClusterShell's configuration for a child process."""

    def write(text: str) -> None:
        (tmp_path / "groups.conf").write_text(
            "[Main]\ndefault: local\n[local]\n"
            f"map: sed -n 's/^$GROUP: *//p' {tmp_path}/groups\n"
            f"all: sed -n 's/^all: *//p' {tmp_path}/groups\n"
            f"list: sed -n 's/^\\([a-z0-9]*\\):.*/\\1/p' {tmp_path}/groups\n"
        )
        (tmp_path / "groups").write_text(text)
        monkeypatch.setenv("CLUSTERSHELL_CFGDIR", str(tmp_path))

    return write


def found_with(**members: object) -> str:
    """Return what a process of its own finds, since ClusterShell reads its configuration once."""
    program = (
        "import sys\nfrom remctl.cli._targets import *\n"
        f"try: print(*map(label, find(Named(**{members!r}))))\n"
        "except TargetError as error: print('error:', error)\n"
    )
    return subprocess.check_output([sys.executable, "-c", program], text=True, stderr=subprocess.STDOUT).strip()


class TestGroups:
    def test_are_those_of_clustershell(self, groups: Callable[[str], None]) -> None:
        groups("all: n[1-6]\nrack1: n[1-3]\nrack2: n[4-6]\ndown: n5\n")
        assert found_with(groups=["rack1"]) == "n1 n2 n3"
        assert found_with(nodes=["@rack[1-2]!@down"]) == "n1 n2 n3 n4 n6"
        assert found_with(everything=True, without_groups=["rack1"]) == "n4 n5 n6"
        assert found_with(everything=True, without=["@rack2,n1"]) == "n2 n3"

    def test_that_are_unknown_are_an_error(self, groups: Callable[[str], None]) -> None:
        groups("rack1: n[1-3]\n")
        for members in (
            {"groups": ["rack7"]},
            {"nodes": ["n1,@rack7"]},
            {"nodes": ["n1"], "without_groups": ["rack7"]},
            {"nodes": ["@rack[1,7],@rack7"]},
        ):
            assert "@rack7 is no group, or has no host" in found_with(**members)
        assert "group source nowhere is not known" in found_with(groups=["nowhere:x"])
        assert "all hosts (-a) are none" in found_with(everything=True)

    def test_that_a_shell_would_run_are_refused(self, groups: Callable[[str], None], tmp_path: Path) -> None:
        groups("rack1: n[1-3]\n")
        mark = tmp_path / "mark"
        for name in (f"$(touch {mark})", f"`touch {mark}`", f";touch {mark}", f"x';touch {mark};'", "x[$(id)]"):
            assert "no name" in found_with(groups=[name.replace(" ", "${IFS}")])
            assert "error" in found_with(groups=[name])
        assert not mark.exists()


class TestCommandLine:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["-w", "n[1-", "x"], b"makes no sense"),
            (["-g", "no-such-group", "x"], b"is no group"),
            (["-w", "../x", "x"], b"this is no name of a host: '../x'"),
            (["--hostfile", "/nowhere", "x"], b"cannot be read"),
            (["-w", "a", "-x", "a", "x"], b"there is no host"),
        ],
    )
    def test_that_names_no_hosts_is_a_usage_error(self, words: list[str], said: bytes) -> None:
        ended = pyremctl(*words)
        assert (ended.status, ended.stdout) == (2, b"")
        assert ended.stderr.startswith(b"pyremctl: ")
        assert said in ended.stderr


def test_labels_make_the_same_host_again() -> None:
    for name in ("h", "h:1", "[::1]:2", "::1"):
        assert label(host_of(name)) == name
        assert host_of(label(host_of(name))) == host_of(name)
