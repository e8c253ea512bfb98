"""Scripts as files: what is well-formed, how they are installed, and what is run in the end."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remctl.exceptions import RemctlError
from remctl.jobs.scripts import (
    AD_HOC,
    MAX_SIZE,
    Language,
    Limits,
    Script,
    ScriptError,
    check_name,
    install,
    read_script,
    verify,
)

HEADER = '# /// job\n# description = "What it does"\n# ///\n'
BASH = f"#!/bin/bash\n{HEADER}echo done\n"
BODIES = {
    "report.py": f"#!/usr/bin/python3\n# -*- coding: utf-8 -*-\n{HEADER}print('ä')\n",
    "report.sh": BASH,
    "report.pl": f"#!/usr/bin/perl\n{HEADER}print 1;\n",
    "report.groovy": f"#!/usr/bin/env groovy\n{HEADER.replace('#', '//')}println 1\n",
}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes the file of a script."""

    def written(body: str | bytes = BASH, name: str = "report.sh") -> Path:
        path = tmp_path / name
        path.write_bytes(body if isinstance(body, bytes) else body.encode())
        return path

    return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder for installed scripts."""
    made = tmp_path / "scripts"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def script(write: Callable[..., Path]) -> Script:
    return read_script(write())


def script_of(body: str, name: str = "report") -> Script:
    """Make a script whose syntax nobody has checked."""
    data = body.encode()
    digest = hashlib.sha256(data).hexdigest()
    return Script(name, Language.BASH, "x", data, digest, AD_HOC.parameters, Limits())


def reading(path: str | Path, **options: str) -> str:
    """How reading a file is refused."""
    with pytest.raises(ScriptError) as caught:
        read_script(path, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def installing(script: Script, folder: Path) -> str:
    with pytest.raises(ScriptError) as caught:
        install(script, folder)
    return str(caught.value)


def verifying(path: Path, sha256: str) -> str:
    with pytest.raises(ScriptError) as caught:
        verify(path, sha256)
    return str(caught.value)


# Reading


@pytest.mark.parametrize("name", BODIES)
def test_a_script_of_each_language_is_read(write: Callable[..., Path], name: str) -> None:
    path = write(BODIES[name], name)
    script = read_script(path)
    assert script.name == "report"
    assert script.language.suffix == path.suffix
    assert script.filename == name
    assert script.description == "What it does"
    assert script.body == path.read_bytes()
    assert script.sha256 == hashlib.sha256(script.body).hexdigest()
    assert script.limits == Limits()
    assert not script.parameters
    assert hash(script) == hash(read_script(path))


def test_what_the_caller_says_counts_for_more(write: Callable[..., Path]) -> None:
    script = read_script(write(BASH, "Report.txt"), name="disk-report", language="bash", description="Disks")
    assert (script.name, script.language, script.description) == ("disk-report", Language.BASH, "Disks")
    assert read_script(write(f"{HEADER}print 1;\n", "x"), language=Language.PERL).language is Language.PERL


def test_the_language_that_is_given_settles_a_contradiction(write: Callable[..., Path]) -> None:
    path = write(BASH, "report.py")
    assert reading(path) == (f"{path}:1: its #! line is for bash, and its suffix is .py; mend it, or give --language")
    assert read_script(path, language="bash").language is Language.BASH
    assert "python cannot read it" in reading(path, language="python")


@pytest.mark.parametrize(
    "name",
    ["", "Report", "1report", "-report", "_report", "..", "../x", "a/b", "a.b", "a b", "ä", "a\n", "a\0", "a" * 65],
)
def test_a_name_is_no_path(write: Callable[..., Path], name: str, folder: Path) -> None:
    message = "name must be a letter a-z and up to 63 more of a-z, 0-9, _ and -: '"
    assert reading(write(), name=name).startswith(message)
    assert installing(script_of(BASH, name), folder).startswith(message)
    assert os.listdir(folder) == []


def test_a_file_with_another_name_needs_one(write: Callable[..., Path]) -> None:
    assert reading(write(BASH, "Disk Report.sh")).endswith(": 'Disk Report'")


def test_the_name_of_the_script_that_is_always_there_is_taken(write: Callable[..., Path]) -> None:
    assert reading(write(BASH, "python.sh")).startswith("name 'python' is taken")


@given(st.text())
@example("a" * 64)
def test_any_name_is_plain_or_refused(name: str) -> None:
    try:
        checked = check_name(name)
    except ScriptError as error:
        said = str(error)
    else:
        said = checked
        assert os.path.basename(checked) == checked == name
        assert re.fullmatch("[a-z][a-z0-9_-]*", checked)
    assert said.isprintable()


@pytest.mark.parametrize("description", ["", "two\nlines", " x", "\x1b[2J", "a\0"])
def test_a_description_is_one_line(write: Callable[..., Path], description: str) -> None:
    path = write()
    assert reading(path, description=description).startswith(f"{path}: description: it must be a text of one line")


def test_a_script_has_a_description(write: Callable[..., Path]) -> None:
    path = write("# /// job\n# ///\n")
    assert reading(path) == f"{path}:1: description: the header has no description"
    assert read_script(path, description="x").description == "x"


@pytest.mark.parametrize("name", BODIES)
def test_an_error_in_the_header_names_file_line_and_key(write: Callable[..., Path], name: str) -> None:
    path = write(BODIES[name].replace("description", "run-time"), name)
    line = 3 if name != "report.py" else 4
    assert reading(path).startswith(f"{path}:{line}: run-time: it must be a number of seconds")


def test_an_error_in_the_syntax_names_file_and_line(write: Callable[..., Path]) -> None:
    path = write(f"{BASH}fi\n")
    with pytest.raises(ScriptError) as caught:
        read_script(path)
    assert (caught.value.path, caught.value.line) == (str(path), 6)
    assert str(caught.value) == f"{path}:6: bash cannot read it: syntax error near unexpected token `fi'"
    assert isinstance(caught.value, RemctlError)


def test_a_script_without_a_header_is_not_well_formed(write: Callable[..., Path]) -> None:
    path = write("#!/bin/bash\necho\n")
    assert reading(path).startswith(f"{path}:1: there is no header at its top; the smallest is three lines: ")


def test_a_byte_order_mark_is_refused(write: Callable[..., Path]) -> None:
    path = write(b"\xef\xbb\xbf" + BASH.encode())
    assert reading(path) == f"{path}:1: it begins with a byte order mark; save it as UTF-8 without one"


def test_bash_takes_no_lines_that_end_in_cr_lf(write: Callable[..., Path]) -> None:
    path = write(f"{BASH}echo\r\n")
    assert reading(path) == f"{path}:6: it has lines that end in CR LF; Bash takes LF alone"


@pytest.mark.parametrize("name", [name for name in BODIES if name != "report.sh"])
def test_the_other_languages_take_lines_that_end_in_cr_lf(write: Callable[..., Path], name: str) -> None:
    script = read_script(write(BODIES[name].replace("\n", "\r\n"), name))
    assert script.description == "What it does"
    assert b"\r\n" in script.body


@pytest.mark.parametrize(("junk", "reason"), [(b"\xe4", "it is not UTF-8"), (b"\0", "there is a NUL in it")])
def test_a_script_is_text(write: Callable[..., Path], junk: bytes, reason: str) -> None:
    path = write(BASH.encode() + b"# \n# " + junk)
    assert reading(path) == f"{path}:7: {reason}"


def test_a_script_has_a_mebibyte_at_the_most(write: Callable[..., Path]) -> None:
    filled = BASH + "#" * (MAX_SIZE - len(BASH) - 1) + "\n"
    assert len(read_script(write(filled)).body) == MAX_SIZE
    path = write(filled + "\n")
    assert reading(path) == f"{path}: it is larger than 1048576 bytes"


def test_what_is_no_regular_file_is_refused_at_once(write: Callable[..., Path], tmp_path: Path) -> None:
    link = tmp_path / "link.sh"
    link.symlink_to(write())
    assert reading(link) == f"{link}: it is a symbolic link"
    pipe = tmp_path / "pipe.sh"
    os.mkfifo(pipe)
    assert reading(pipe) == f"{pipe}: it is no regular file"
    inner = tmp_path / "inner.sh"
    inner.mkdir()
    assert reading(inner) == f"{inner}: it is no regular file"
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket.sh"))
        assert reading(tmp_path / "socket.sh").startswith(f"{tmp_path / 'socket.sh'}: No such device")
    assert reading("/dev/zero", name="zero") == "/dev/zero: it is no regular file"


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    assert reading(tmp_path / "none.sh") == f"{tmp_path / 'none.sh'}: No such file or directory"
    assert reading("a\0.sh", name="a") == "a\\x00.sh: embedded null byte"
    assert reading(f"{'x' * 300}.sh", name="a").endswith(": File name too long")


# Installing


def test_an_installed_script_is_its_owners_to_read_and_run(script: Script, folder: Path) -> None:
    path = install(script, folder)
    assert path == folder / "report.sh"
    assert path.read_bytes() == script.body
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_nlink) == (0o500, os.geteuid(), 1)
    assert os.listdir(folder) == ["report.sh"]


def test_the_mode_does_not_hang_on_the_umask(script: Script, folder: Path) -> None:
    before = os.umask(0o777)
    try:
        path = install(script, folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o500


def test_an_older_version_is_replaced_and_whoever_has_it_open_keeps_it(script: Script, folder: Path) -> None:
    path = install(script, folder)
    newer = script_of(BASH + "# newer\n")
    with open(path, "rb") as opened:
        assert install(newer, folder) == path
        assert opened.read() == script.body
    assert verify(path, newer.sha256) == newer.body
    assert "it is not what was installed" in verifying(path, script.sha256)
    assert os.listdir(folder) == ["report.sh"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(
    script: Script, folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (folder / "report.sh").symlink_to(victim)
    path = install(script, folder)
    assert not path.is_symlink()
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_can_write_in_is_refused(script: Script, folder: Path, mode: int) -> None:
    folder.chmod(mode)
    text = f"{folder}: its mode is {mode:04o}: group or others can write; chmod go-w"
    assert installing(script, folder) == text
    assert os.listdir(folder) == []


def test_a_folder_that_is_a_link_is_refused(script: Script, folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert installing(script, link) == f"{link}: it is a symbolic link"
    assert os.listdir(folder) == []


def test_a_folder_that_is_none_is_an_error(script: Script, write: Callable[..., Path], tmp_path: Path) -> None:
    assert installing(script, tmp_path / "none") == f"{tmp_path / 'none'}: No such file or directory"
    path = write()
    assert installing(script, path) == f"{path}: Not a directory"


def test_a_folder_of_somebody_else_is_refused(script: Script, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    if me == 0:
        os.chown(folder, 1234, -1)
        assert installing(script, folder) == f"{folder}: it belongs to the user with number 1234, and not to 0"
    else:
        assert installing(script, Path("/usr")) == f"/usr: it belongs to the user with number 0, and not to {me}"


def test_what_cannot_be_written_leaves_nothing_behind(script: Script, folder: Path) -> None:
    (folder / "report.sh").mkdir()
    assert installing(script, folder) == f"{folder}: Is a directory"
    assert os.listdir(folder) == ["report.sh"]


def test_a_full_disk_is_an_error_and_keeps_the_older_version(folder: Path) -> None:
    """A process whose files may have 100 bytes stands for a full disk: its writes fail half way."""
    install(script_of(BASH), folder)
    code = f"""if True:
        import resource, signal
        from pathlib import Path
        from jobs.test_scripts import script_of
        from remctl.jobs.scripts import ScriptError, install
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            install(script_of("#" * 5000), Path({str(folder)!r}))
        except ScriptError as error:
            print(error)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert ran.stdout.decode() == f"{folder}: File too large\n"
    assert os.listdir(folder) == ["report.sh"]
    assert (folder / "report.sh").read_text() == BASH


# What is run in the end


@pytest.fixture
def installed(script: Script, folder: Path) -> Path:
    return install(script, folder)


def replace(path: Path, body: bytes) -> None:
    path.unlink()
    path.write_bytes(body)
    path.chmod(0o500)


def test_what_was_installed_is_verified(installed: Path, script: Script) -> None:
    assert verify(installed, script.sha256) == script.body


def test_a_swapped_file_is_refused(installed: Path, script: Script) -> None:
    replace(installed, b"echo swapped\n")
    found = hashlib.sha256(b"echo swapped\n").hexdigest()
    assert verifying(installed, script.sha256) == (
        f"{installed}: it is not what was installed: its SHA-256 is {found}, and was '{script.sha256}'"
    )


def test_what_is_swapped_after_the_check_is_not_run(installed: Path, script: Script) -> None:
    checked = verify(installed, script.sha256)
    replace(installed, b"echo swapped\n")
    assert checked == script.body
    ran = subprocess.run([Language.BASH.interpreter, "-s"], input=checked, capture_output=True, check=True)
    assert ran.stdout == b"done\n"


def test_a_link_to_the_same_contents_is_refused(installed: Path, script: Script, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    installed.rename(moved)
    installed.symlink_to(moved)
    assert verifying(installed, script.sha256) == f"{installed}: it is a symbolic link"


def test_a_pipe_is_refused_at_once(installed: Path, script: Script) -> None:
    installed.unlink()
    os.mkfifo(installed, 0o500)
    assert verifying(installed, script.sha256) == f"{installed}: it is no regular file"


@pytest.mark.parametrize("mode", [0o520, 0o502, 0o777])
def test_a_file_that_others_can_write_is_refused(installed: Path, script: Script, mode: int) -> None:
    installed.chmod(mode)
    text = f"{installed}: its mode is {mode:04o}: group or others can write; chmod go-w"
    assert verifying(installed, script.sha256) == text


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_file_in_a_folder_that_others_can_write_in_is_refused(installed: Path, script: Script, mode: int) -> None:
    installed.parent.chmod(mode)
    assert verifying(installed, script.sha256).startswith(f"{installed.parent}: its mode is {mode:04o}: ")


def test_a_folder_that_became_a_link_is_refused(installed: Path, script: Script, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    installed.parent.rename(moved)
    installed.parent.symlink_to(moved)
    assert verifying(installed, script.sha256) == f"{installed.parent}: it is a symbolic link"


def test_a_file_or_folder_of_somebody_else_is_refused(
    installed: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(installed, 1234, -1)
        assert verifying(installed, script.sha256).startswith(f"{installed}: it belongs to the user with number 1234")
        os.chown(installed, 0, -1)
        os.chown(installed.parent, 1234, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 1)
    text = f"{installed.parent}: it belongs to the user with number "
    assert verifying(installed, script.sha256).startswith(text)


@as_root
def test_a_hard_link_to_a_file_of_somebody_else_is_refused(installed: Path, script: Script, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(script.body)
    other.chmod(0o500)
    os.chown(other, 1234, -1)
    installed.unlink()
    installed.hardlink_to(other)
    assert verifying(installed, script.sha256) == (
        f"{installed}: it belongs to the user with number 1234, and neither to 0 nor to root"
    )


def test_a_file_that_has_gone_or_grown_is_refused(installed: Path, script: Script) -> None:
    replace(installed, script.body + b"#" * MAX_SIZE)
    assert verifying(installed, script.sha256) == f"{installed}: it is larger than 1048576 bytes"
    installed.unlink()
    assert verifying(installed, script.sha256) == f"{installed}: No such file or directory"
    installed.parent.rmdir()
    assert verifying(installed, script.sha256) == f"{installed.parent}: No such file or directory"


@pytest.mark.parametrize("sha256", ["", "canary\n", "0" * 64])
def test_another_hash_is_refused(installed: Path, script: Script, sha256: str) -> None:
    assert "it is not what was installed" in verifying(installed, sha256)


# Code that comes with the job


def test_the_script_that_is_always_there_runs_the_code_that_it_is_given(folder: Path) -> None:
    assert AD_HOC.name == "python"
    AD_HOC.language.check(AD_HOC.body)
    values = AD_HOC.parameters.check({"code": "import os\nprint('ä', __name__, 'JOB_PARAM_CODE' in os.environ)\n"})
    ran = subprocess.run(
        AD_HOC.language.command(install(AD_HOC, folder)),
        env=AD_HOC.parameters.as_environment(values) | {"LANG": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert ran.stdout.decode() == "ä __main__ False\n"
    with pytest.raises(ScriptError, match=r"^parameter code: it is missing$"):
        AD_HOC.parameters.check({})
