"""Names that come from elsewhere stay in the folder of the scripts."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remctl.jobs.robot._errors import ScriptError
from remctl.jobs.robot._scripts import find

HOSTILE = (
    "",
    ".",
    "..",
    "../outside",
    "..\\outside",
    "/etc/passwd",
    "C:work",
    "C:\\Windows\\notepad",
    "\\\\host\\share",
    "work.py:stream",
    "work\0",
    "work\n",
    "wo\u202erk",
    "work.",
    "work ",
    " work",
    "-c",
    ".hidden",
    "sub/inner",
    "con",
    "NUL",
    "nul.py",
    "Aux.txt",
    "com1",
    "LPT9.py",
    "com\u00b9",
    "CONIN$",
    "nul ",
    "work*",
    "work?",
    "<work>",
    'wo"rk',
    "a|b",
    "\ud800",
    "x" * 201,
    "link",
    "linked",
    "sub",
    "socket",
    "fifo",
    "absent",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("scripts")
    (top / "outside.py").touch()
    folder = top / "scripts"
    (folder / "sub").mkdir(parents=True)
    for name in ("work.py", "plain", "both", "both.py", "sub/inner.py", "d.py", "ÿ.py"):
        (folder / name).touch()
    (folder / "d").mkdir()
    (folder / "link.py").symlink_to(top / "outside.py")
    (folder / "linked").symlink_to(top, target_is_directory=True)
    (folder / "alias.py").symlink_to("work.py")
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("work", "work.py"),
        ("work.py", "work.py"),
        ("plain", "plain"),
        ("both", "both"),
        ("d", "d.py"),
        ("alias", "work.py"),
        ("ÿ", "ÿ.py"),
    ],
)
def test_a_script_is_found(folder: Path, name: str, file: str) -> None:
    assert find(folder, name) == (folder / file).resolve()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_refused_in_one_line(folder: Path, name: str) -> None:
    with pytest.raises(ScriptError) as caught:
        find(folder, name)
    assert str(caught.value).isprintable()


def test_a_socket_is_no_script(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{short}/socket")
        with pytest.raises(ScriptError, match="no script"):
            find(Path(short), "socket")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot be looked for"):
        find(tmp_path / "absent", "work")


@settings(max_examples=500, deadline=None)
@given(
    st.text(st.characters(exclude_categories=[]), max_size=20)
    | st.lists(st.sampled_from(["..", "/", "\\", ".", "work", ".py", "sub", "link", "outside", "C:", "\0", " "])).map(
        "".join
    )
)
@example("sub/../work")
def test_whatever_the_name_is_the_file_is_in_the_folder(folder: Path, name: str) -> None:
    try:
        found = find(folder, name)
    except ScriptError:
        return
    assert found.parent == folder.resolve()
    assert found.is_file()
