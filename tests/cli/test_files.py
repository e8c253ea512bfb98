"""A file for each host, in a folder that no name leaves."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.showing import ERR, Showing, refused
from remctl.cli._files import KEPT, LONGEST, file_name
from remctl.cli._shown import Shown
from remctl.exceptions import RemctlError
from remctl.fanout._results import HostState


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_each_host_has_a_file_of_each_stream(tmp_path: Path) -> None:
    out, err = tmp_path / "a" / "out", tmp_path / "err"
    showing = Showing(outdir=out, errdir=err)
    showing.ran("n1", b"one\n\xff", b"wrong")
    showing.ran("n2")
    showing.close()
    assert contents(out) == {"n1": b"one\n\xff", "n2": b""}
    assert contents(err) == {"n1": b"wrong", "n2": b""}
    assert showing.out == b"n1: one\nn1: \xff\n"
    assert not showing.display.lost


def test_a_file_has_its_name_when_the_host_is_done(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path)
    (tmp_path / "n1").write_bytes(b"earlier")
    showing.output("n1", b"x" * KEPT, b"y")
    assert contents(tmp_path) == {"n1": b"earlier", ".n1.part": b"x" * KEPT}
    showing.end("n1")
    assert contents(tmp_path) == {"n1": b"x" * KEPT + b"y"}


def test_no_file_stays_open_between_two_pieces(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(100):
        showing.output(f"n{number}", b"x" * KEPT)
    assert len(os.listdir("/proc/self/fd")) == before
    showing.close(interrupted=True)
    assert len(contents(tmp_path)) == 100
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_a_host_that_was_never_begun_leaves_the_file_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "n1").write_bytes(b"earlier")
    showing = Showing(outdir=tmp_path)
    showing.end("n1", None, state=HostState.SKIPPED)
    showing.end("n2", None, state=HostState.REFUSED, error=refused("10.0.0.1"))
    showing.close()
    assert contents(tmp_path) == {"n1": b"earlier", "n2": b""}


def test_a_host_named_twice_does_not_end_the_file_of_the_first(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path)
    showing.output("n1", b"a")
    showing.end("n1", None, state=HostState.SKIPPED)
    showing.output("n1", b"b")
    showing.end("n1")
    assert contents(tmp_path) == {"n1": b"ab"}


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".n1.part").write_bytes(b"half")
    showing = Showing(outdir=tmp_path)
    showing.ran("n1", b"new")
    showing.close()
    assert contents(tmp_path) == {"n1": b"new"}


# Names


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("n1.example.org", "n1.example.org"),
        ("N1", "N1"),
        ("[::1]:4373", "%5b::1%5d:4373"),
        ("../x", "%2e.%2fx"),
        (".", "%2e"),
        ("..", "%2e."),
        ("/etc/passwd", "%2fetc%2fpasswd"),
        ("-rf", "%2drf"),
        ("a\0b\nc", "a%00b%0ac"),
        ("a%2fb", "a%252fb"),
        ("é\udcff", "%c3%a9%ed%b3%bf"),
        ("", "%"),
    ],
)
def test_what_is_not_plain_is_escaped_in_a_name(host: str, name: str) -> None:
    assert file_name(host) == name


def test_long_names_are_cut_and_stay_apart() -> None:
    names = {file_name("n" * 1000 + end) for end in ("a", "b")}
    assert len(names) == 2
    assert max(map(len, names)) < 255 - len("..part%.99999")
    assert file_name("n" * LONGEST) == "n" * LONGEST


def test_names_that_differ_in_capitals_alone_get_files_of_their_own(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path)
    showing.ran("n1", b"a")
    showing.ran("N1", b"b")
    showing.ran("n1", b"c")
    showing.close()
    assert contents(tmp_path) == {"n1": b"a", "N1%.2": b"b", "n1%.3": b"c"}


_HOSTILE = st.one_of(st.text(), st.text("./\\%~-\0\n:nN1", max_size=9), st.text(".", max_size=3))


@given(_HOSTILE, _HOSTILE)
def test_no_name_leaves_the_folder_or_is_another_hosts(first: str, second: str) -> None:
    name = file_name(first)
    assert os.path.normpath(os.path.join("/folder", name)) == f"/folder/{name}"
    assert not name.startswith((".", "-"))
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()
    assert (name == file_name(second)) == (first == second)


# What is in the way


def test_links_are_replaced_and_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"mine")
    (folder / "n1").symlink_to(outside)
    (folder / "n2").hardlink_to(outside)
    (folder / ".n1.part").symlink_to(outside)
    showing = Showing(outdir=folder)
    showing.ran("n1", b"a")
    showing.ran("n2", b"b")
    showing.close()
    assert outside.read_bytes() == b"mine"
    assert contents(folder) == {"n1": b"a", "n2": b"b"}


def test_a_link_that_comes_in_between_is_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    outside.write_bytes(b"mine")
    showing = Showing(outdir=folder)
    showing.output("n1", b"x" * KEPT)
    (folder / ".n1.part").unlink()
    (folder / ".n1.part").symlink_to(outside)
    showing.output("n1", b"y")
    showing.end("n1")
    showing.close()
    assert outside.read_bytes() == b"mine"
    assert showing.display.lost


def test_the_folder_is_the_one_from_the_beginning(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "other")
    showing.ran("n1", b"a")
    showing.close()
    assert contents(tmp_path / "moved") == {"n1": b"a"}
    assert contents(tmp_path / "other") == {}


def test_a_folder_under_the_name_of_a_host_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    showing = Showing(outdir=tmp_path)
    showing.ran("n1", b"a")
    showing.ran("n2", b"b")
    showing.close()
    assert showing.err == f"pyremctl: n1: its output is not in {tmp_path}: Is a directory\n"
    assert showing.display.lost
    assert sorted(os.listdir(tmp_path)) == ["n1", "n2"]


def test_a_full_disk_is_said_and_the_run_goes_on(small_disk: Path) -> None:
    showing = Showing(outdir=small_disk, gather="stdout")
    for _ in range(10):
        showing.output("n1", b"x" * KEPT)
    showing.end("n1")
    showing.ran("n2", b"small")
    showing.close()
    assert showing.err == f"pyremctl: n1: its output is not in {small_disk}: No space left on device\n"
    assert showing.display.lost
    assert contents(small_disk) == {"n2": b"small"}


def test_many_files_that_fail_alike_are_said_in_one_line(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path, gather="stdout")
    for number in range(1, 10):
        (tmp_path / f"n{number}").mkdir()
        showing.ran(f"n{number}", b"a")
    showing.close()
    assert showing.err == f"pyremctl: n[1-9] (9): its output is not in {tmp_path}: Is a directory\n"


def test_sockets_that_have_taken_all_descriptors_cost_no_file(tmp_path: Path) -> None:
    showing = Showing(outdir=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        for number in range(3):
            showing.ran(f"n{number}", b"a")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    showing.close()
    assert contents(tmp_path) == {f"n{number}": b"a" for number in range(3)}


def test_a_folder_that_cannot_be_used_is_said_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RemctlError, match=r"the folder .*file cannot be used: File exists; name one"):
        Showing(outdir=tmp_path / "file")


def test_both_streams_cannot_go_into_one_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be the same folder"):
        Shown(outdir=tmp_path, errdir=tmp_path / "." / ".." / tmp_path.name)


def test_json_can_go_with_files(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    showing = Showing(outdir=tmp_path, json=True)
    showing.ran("n1", b"a", b"b")
    showing.output("n2", b"b", stream=ERR)
    showing.end("n2", 1)
    showing.close()
    assert showing.out.count(b'"type":"host"') == 2
    assert showing.err == f"pyremctl: n1: its output is not in {tmp_path}: Is a directory\n"
