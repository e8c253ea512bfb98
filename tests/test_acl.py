"""ACLs in remctld's syntax: each rule by itself, and side by side with what remctld decides."""

from __future__ import annotations

import ctypes
import itertools
import locale
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import remctl
from remctl import _localname
from remctl.acl import ANONYMOUS, Acl
from remctl.testing import Sandbox, Server
from remctl.testing.programs import find
from remctl.types import ErrorCode

USER = "user@SANDBOX.TEST"
ADA = "ada@SANDBOX.TEST"
ADMIN = "ada/admin@SANDBOX.TEST"
NOBODY = "WELLKNOWN/ANONYMOUS@WELLKNOWN:ANONYMOUS"


@pytest.fixture
def acl_file(tmp_path: Path) -> Path:
    return tmp_path / "acl"


def allows(path: Path, text: str | bytes, principal: str = USER) -> bool:
    """What a file with that text decides."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Acl(f"file:{path}").allows(principal)


def refuses_for(caplog: pytest.LogCaptureFixture, acl: Acl, reason: str, principal: str = USER) -> bool:
    """Whether it refuses and logs one error that has the reason in it."""
    caplog.clear()
    allowed = acl.allows(principal)
    records = [(record.name, record.levelno) for record in caplog.records]
    return not allowed and records == [("remctl.acl", logging.ERROR)] and reason in caplog.text


# What an ACL is


def test_the_entries_may_come_together_or_one_by_one() -> None:
    together, single = Acl("princ:a@R \tdeny:b@R\tANYUSER "), Acl("princ:a@R", "deny:b@R", "ANYUSER")
    assert together.entries == ("princ:a@R", "deny:b@R", "ANYUSER")
    assert together == single
    assert hash(together) == hash(single)
    assert str(together) == "princ:a@R deny:b@R ANYUSER"
    assert repr(together) == "Acl('princ:a@R', 'deny:b@R', 'ANYUSER')"
    assert pickle.loads(pickle.dumps(together)) == together


def test_other_entries_and_other_things_are_not_equal() -> None:
    assert Acl("ANYUSER") != Acl("anyuser:auth")
    assert Acl("ANYUSER") != "ANYUSER"


@pytest.mark.parametrize("text", ["princ:a@R", "ANYUSER", "regex:a", "deny:deny:anyuser:anonymous", "pcre:a gput:a"])
def test_what_stands_in_the_entries_alone_does_not_wait(text: str) -> None:
    assert not Acl(text).waits


@pytest.mark.parametrize("text", ["/etc/acl", "file:/etc/acl", "localgroup:g", "princ:a@R deny:deny:localgroup:g"])
def test_files_and_groups_wait(text: str) -> None:
    assert Acl(text).waits


def test_neither_the_extension_nor_ctypes_is_loaded_before_it_is_needed() -> None:
    code = """if True:
        import sys, remctl.acl
        before = set(sys.modules)
        remctl.acl.Acl("princ:a@R localgroup:g").allows("a@R")
        assert "ctypes" not in set(sys.modules) - before and "remctl._localname" not in sys.modules
    """
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], check=True)


# What is refused at once


@pytest.mark.parametrize("entry", [None, b"ANYUSER", 1, ["ANYUSER"], Path("/etc/acl")])
def test_an_entry_that_is_no_str_is_refused(entry: str) -> None:
    with pytest.raises(TypeError, match=r"^acl must be a str: "):
        Acl("ANYUSER", entry)


@pytest.mark.parametrize("entries", [(), ("",), (" \t",), (" ", "\t")])
def test_there_must_be_an_entry(entries: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^acl must "):
        Acl(*entries)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("princ:a\0@R", "must not contain NUL"),
        ("princ:\ud800@R", "is no valid text"),
        ("princ:a@R\n", "there is a newline in it"),
        ("princ:a@R\nANYUSER", "there is a newline in it"),
        ("unxgrp:staff", "there is no method 'unxgrp'"),
        ("deny:unxgrp:staff", "there is no method 'unxgrp'"),
        ("PRINC:a@R", "there is no method 'PRINC'"),
        ("/etc/acl:1", "there is no method '/etc/acl'"),
        (":a@R", "there is no method ''"),
        ("a@R", "a principal is written princ:NAME"),
        ("anyuser", "a path must be absolute"),
        ("AnyUser", "a path must be absolute"),
        ("etc/acl", "a path must be absolute"),
        ("file:etc/acl", "a path must be absolute"),
        ("deny:file:etc/acl", "a path must be absolute"),
        ("file:", "a path must be absolute"),
        ("logmask=1", "a path must be absolute"),
        ("include", "a path must be absolute"),
        ("princ:", "nothing stands behind princ:"),
        ("regex:", "nothing stands behind regex:"),
        ("localgroup:", "nothing stands behind localgroup:"),
        ("pcre:", "nothing stands behind pcre:"),
        ("deny:", "nothing stands behind princ:"),
        ("deny:deny:", "nothing stands behind princ:"),
        ("anyuser:", "anyuser: takes auth or anonymous"),
        ("anyuser:everybody", "anyuser: takes auth or anonymous"),
        ("anyuser:AUTH", "anyuser: takes auth or anonymous"),
        ("regex:(", "Unmatched ( or \\("),
        ("deny:regex:[z-a]", "Invalid range end"),
        ("regex:a\\\\", "remctld would read on"),
        ("deny:/etc/acl", "behind deny: a path is written file:PATH"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_by_name(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^acl ") as caught:
        Acl("ANYUSER", entry)
    assert reason in str(caught.value)
    assert str(caught.value).endswith(repr(entry.strip("\t")))


@pytest.mark.parametrize("length", [8191, 1_000_000])
def test_an_entry_that_libcs_stack_may_not_have_room_for_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"^acl .* longer ") as caught:
        Acl("regex:".ljust(length, "("))
    assert len(str(caught.value)) < 300


def test_no_file_is_looked_at_before_a_check(caplog: pytest.LogCaptureFixture) -> None:
    assert refuses_for(caplog, Acl("/nonexistent/acl"), "/nonexistent/acl")


# Entries


def test_the_first_entry_that_matches_decides() -> None:
    assert Acl(f"princ:{USER} deny:{USER}").allows(USER)
    assert not Acl(f"deny:{USER} princ:{USER}").allows(USER)
    assert Acl(f"deny:{ADA} ANYUSER").allows(USER)


def test_nobody_may_where_nothing_matches(caplog: pytest.LogCaptureFixture) -> None:
    assert not Acl(f"princ:{ADA} deny:{ADMIN}").allows(USER)
    assert not caplog.records


def test_a_principal_is_compared_as_a_whole() -> None:
    acl = Acl("princ:jürgen@R")
    assert acl.allows("jürgen@R")
    assert not any(map(acl.allows, ["jurgen@R", "JÜRGEN@R", "jürgen@RR", "jürgen", "ju\u0308rgen@R", ""]))


def test_a_principal_keeps_what_stands_behind_further_colons() -> None:
    assert Acl(f"princ:{NOBODY}").allows(NOBODY)


def test_two_denials_neither_grant_nor_refuse() -> None:
    assert not Acl(f"deny:deny:{USER}").allows(USER)
    assert Acl(f"deny:deny:{USER} ANYUSER").allows(USER)
    assert Acl(f"deny:deny:deny:{USER} ANYUSER").allows(USER)
    assert not Acl("deny:" * 1500 + USER).allows(USER)


def test_any_user_is_everybody_with_a_name() -> None:
    assert NOBODY.startswith(ANONYMOUS)
    for text in ("ANYUSER", "anyuser:auth"):
        assert Acl(text).allows(USER)
        assert not Acl(text).allows(NOBODY)
    assert not Acl("deny:ANYUSER anyuser:anonymous").allows(USER)
    assert Acl("deny:ANYUSER anyuser:anonymous").allows(NOBODY)


def test_an_error_refuses_whatever_comes_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    assert refuses_for(caplog, Acl("/nonexistent/acl ANYUSER"), f"'{USER}' is refused: ACL entry /nonexistent/acl: ")
    assert refuses_for(caplog, Acl("deny:deny:file:/nonexistent/acl ANYUSER"), "No such file")
    assert Acl("ANYUSER /nonexistent/acl").allows(USER)


@pytest.mark.parametrize("method", ["pcre", "gput"])
def test_a_method_of_other_servers_refuses(method: str, caplog: pytest.LogCaptureFixture) -> None:
    acl = Acl(f"{method}:user ANYUSER")
    assert refuses_for(caplog, acl, f"ACL entry {method}:user: the method '{method}' is not supported")


def test_a_name_with_a_nul_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    assert refuses_for(caplog, Acl("regex:^user$ ANYUSER"), "NUL", "user\0@R")


def test_a_name_that_is_no_text_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    assert refuses_for(caplog, Acl("regex:^user ANYUSER"), "surrogates not allowed", "user\ud800@R")


# Regular expressions


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("ser@", "user@R", True),
        ("^ser@", "user@R", False),
        ("^(user|root)@R$", "root@R", True),
        ("^u{1}.+[[:alpha:]]@", "user@R", True),
        ("USER", "user@R", False),
        (r"^\w+/admin@", "ada/admin@R", True),
        (r"^(.)\1@", "aa@R", True),
        (r"\d", "user1@R", False),
        ("a:b", "a:b@R", True),
    ],
)
def test_an_expression_is_posix_extended_and_matches_anywhere(pattern: str, text: str, matches: bool) -> None:
    assert Acl(f"regex:{pattern}").allows(text) == matches


@pytest.mark.parametrize(("pattern", "matches"), [("^j.rgen@", False), ("^j..rgen@", True), ("^j[[:alpha:]]+@", False)])
def test_an_expression_sees_bytes_whatever_the_programs_locale(pattern: str, matches: bool) -> None:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
        assert Acl(f"regex:{pattern}").allows("jürgen@R") == matches
    finally:
        locale.setlocale(locale.LC_ALL, before)


def test_an_expression_that_libc_cannot_read_refuses(acl_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl_file.write_text("\nregex:(\nANYUSER\n")
    assert refuses_for(caplog, Acl(str(acl_file)), f"{acl_file}:2: Unmatched ( or \\(")


# Groups


@pytest.mark.usefixtures("box")
def test_an_account_is_in_its_own_group() -> None:
    assert Acl("localgroup:daemon").allows("daemon@SANDBOX.TEST")
    assert not Acl("localgroup:daemon").allows("bin@SANDBOX.TEST")
    assert not Acl("deny:localgroup:daemon ANYUSER").allows("daemon@SANDBOX.TEST")


def test_an_account_is_in_the_groups_that_list_it(box: Sandbox, tmp_path: Path) -> None:
    """With libnss-wrapper, which puts files of ours in the place of the system's."""
    wrapper = {"LD_PRELOAD": "libnss_wrapper.so"}
    for name, text in (
        ("PASSWD", "ada:x:1001:1001::/:/bin/sh\nbob:x:1002:1002::/:/bin/sh\n"),
        ("GROUP", "staff:x:50:eve,ada\nada:x:1001:\n"),
    ):
        (tmp_path / name).write_text(text)
        wrapper[f"NSS_WRAPPER_{name}"] = str(tmp_path / name)
    code = """
from remctl.acl import Acl
for group, user in ("staff", "ada"), ("staff", "bob"), ("staff", "eve"), ("ada", "ada"), ("ada", "bob"):
    print(Acl(f"localgroup:{group}").allows(f"{user}@SANDBOX.TEST"), end=" ")
"""
    answer = subprocess.run([sys.executable, "-c", code], env={**box.env, **wrapper}, capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("True False True True False ", "")


def test_a_group_that_cannot_be_looked_up_refuses(box: Sandbox) -> None:
    code = """
import os, resource, sys
from remctl.acl import Acl
acl = Acl("deny:localgroup:daemon ANYUSER")
assert acl.allows("bin@SANDBOX.TEST")
free = os.open("/", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
print(acl.allows("bin@SANDBOX.TEST"))
"""
    answer = subprocess.run([sys.executable, "-c", code], env=box.env, capture_output=True, text=True)
    assert answer.stdout == "False\n"
    assert "the group cannot be looked up: Too many open files" in answer.stderr


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize(
    ("group", "principal"),
    [
        ("no-such-group", "daemon@SANDBOX.TEST"),
        ("no-such-group", "a@b@c"),
        ("daemon", "no-such-user@SANDBOX.TEST"),
        ("daemon", "daemon@ELSEWHERE.TEST"),
        ("daemon", "daemon/admin@SANDBOX.TEST"),
    ],
)
def test_who_is_unknown_is_in_no_group(group: str, principal: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not Acl(f"localgroup:{group}").allows(principal)
    assert Acl(f"deny:localgroup:{group} ANYUSER").allows(principal)
    assert not caplog.records


@pytest.mark.usefixtures("box")
def test_a_name_that_is_no_principals_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    assert refuses_for(caplog, Acl("localgroup:daemon ANYUSER"), "ACL entry localgroup:daemon: Malformed", "a@b@c")


def test_a_configuration_that_kerberos_cannot_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "krb5.conf").write_text("[libdefaults\n")
    monkeypatch.setenv("KRB5_CONFIG", str(tmp_path / "krb5.conf"))
    assert refuses_for(caplog, Acl("localgroup:daemon ANYUSER"), "Improper format", "daemon@SANDBOX.TEST")


def test_without_libkrb5_groups_refuse(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(_localname, "_libkrb5", lambda: ctypes.CDLL("libnonexistent.so.3"))
    assert refuses_for(caplog, Acl("localgroup:daemon ANYUSER"), "libnonexistent.so.3")


# Files


def test_a_file_has_one_entry_a_line_and_principals_need_no_method(acl_file: Path) -> None:
    text = f"# comment\n\n \t\n  # another\n\t {ADA} \t\r\nprinc:{USER}"
    assert allows(acl_file, text, ADA)
    assert allows(acl_file, text, USER)
    assert not allows(acl_file, text, ADMIN)


def test_a_file_is_read_anew_by_each_check(acl_file: Path) -> None:
    acl = Acl(str(acl_file))
    for _ in range(2):
        acl_file.write_text(USER)
        assert acl.allows(USER)
        acl_file.write_text(ADA)
        assert not acl.allows(USER)


def test_a_file_that_decides_nothing_leaves_it_to_the_next_entry(acl_file: Path) -> None:
    acl_file.write_text("")
    assert not Acl(str(acl_file)).allows(USER)
    assert Acl(str(acl_file), "ANYUSER").allows(USER)


def test_a_denial_in_a_file_counts_in_a_file_and_not_behind_another_deny(acl_file: Path) -> None:
    acl_file.write_text(f"deny:{USER}\n")
    assert not Acl(f"file:{acl_file} ANYUSER").allows(USER)
    assert Acl(f"deny:file:{acl_file} ANYUSER").allows(USER)


def test_a_file_may_be_of_any_bytes(acl_file: Path) -> None:
    assert allows(acl_file, b"\xff\xfe\nj\xc3\xbcrgen@R\n", "jürgen@R")
    assert allows(acl_file, b"j\xfcrgen@R\n", b"j\xfcrgen@R".decode("utf-8", "surrogateescape"))
    assert allows(acl_file, b"regex:^j\xfcr\n", b"j\xfcrgen@R".decode("utf-8", "surrogateescape"))
    assert not allows(acl_file, f"\u00a0{USER}", USER)


def test_a_file_includes_others(acl_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(f"{USER}\n")
    for line in (f"include {tmp_path}/other", f"include \t file:{tmp_path}/other", f"file:{tmp_path}/other"):
        assert allows(acl_file, line)
    assert allows(acl_file, f"include princ:{USER}")
    assert allows(acl_file, "include ANYUSER")
    assert not allows(acl_file, f"{tmp_path}/other")


@pytest.mark.parametrize(
    "line",
    [
        f"{USER} # comment",
        f"{USER} {ADA}",
        "include",
        "include /etc/acl /etc/acl",
        "Include /etc/acl",
        "deny:include /etc/acl",
        "include nonexistent",
        f"include {USER}",
        "include /nonexistent/acl",
        "file:nonexistent",
        "file:",
        "anyuser:everybody",
        "unxgrp:staff",
        "pcre:user",
        "include\tfile:/etc/acl",
        "deny:deny:unxgrp:staff",
        f"{USER}\0",
        "#\0",
    ],
)
def test_a_line_that_cannot_be_read_refuses(line: str, acl_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    alone = line == "include"  # a word by itself is a principal
    acl_file.write_text(f"{ADA}\n\n{line}\n{USER}\n")
    if alone:
        assert Acl(str(acl_file)).allows(USER)
    else:
        assert refuses_for(caplog, Acl(str(acl_file), "ANYUSER"), f"ACL entry {acl_file}: {acl_file}:3: ")
        assert Acl(str(acl_file)).allows(ADA)


@pytest.mark.parametrize(
    ("length", "end", "allowed"), [(8189, "\n", True), (8190, "\n", False), (8190, "", True), (8191, "", False)]
)
def test_a_line_of_8_kib_is_too_long(length: int, end: str, allowed: bool, acl_file: Path) -> None:
    assert allows(acl_file, "#" * length + f"{end}" + (f"{USER}\n" if end else "")) == (allowed and bool(end))
    acl_file.write_text("#" * length + end)
    assert Acl(str(acl_file), "ANYUSER").allows(USER) == allowed


def test_a_file_that_cannot_be_read_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "acl").write_text(USER)
    (tmp_path / "loop").symlink_to("loop")
    for path in ("nonexistent", "loop", "acl/", "acl/x"):
        assert refuses_for(caplog, Acl(f"{tmp_path}/{path}", "ANYUSER"), f"{tmp_path}/{path}'")


@pytest.mark.parametrize(
    "again", ["include {}/acl", "file:{}/acl", "deny:file:{}/acl", "include {}", "include {}/./acl"]
)
def test_a_file_that_includes_itself_refuses(
    again: str, acl_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acl_file.write_text(f"{ADA}\n{again.format(tmp_path)}\nANYUSER\n")
    assert refuses_for(caplog, Acl(str(acl_file), "ANYUSER"), "acl:2: a file includes itself, or ")
    assert Acl(str(acl_file)).allows(ADA)


def test_files_that_include_one_another_refuse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / name).write_text(f"include {tmp_path}/{other}\n")
    assert refuses_for(caplog, Acl(f"{tmp_path}/a", "ANYUSER"), "a file includes itself, or ")


@pytest.mark.parametrize(("count", "allowed"), [(50, True), (51, False)])
def test_files_include_one_another_only_so_deep(count: int, allowed: bool, tmp_path: Path) -> None:
    for number in range(count):
        (tmp_path / str(number)).write_text(f"include {tmp_path}/{number + 1}\n")
    (tmp_path / str(count - 1)).write_text("ANYUSER\n")
    assert Acl(f"{tmp_path}/0").allows(USER) == allowed


# Directories


def test_a_directory_is_all_its_files_of_a_plain_name(tmp_path: Path) -> None:
    for name in ("a", "B-2", "_"):
        (tmp_path / name).write_text(f"{name}@R\n")
    for name in ("a.bak", ".hidden", "a~", "ä", "two words", "nl\n"):
        (tmp_path / name).write_text("unxgrp:error\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_text("inner@R\n")
    acl = Acl(str(tmp_path))
    assert all(map(acl.allows, ("a@R", "B-2@R", "_@R")))
    assert not acl.allows("inner@R")
    assert Acl(f"file:{tmp_path}/", "ANYUSER").allows("inner@R")


@pytest.mark.parametrize("names", list(itertools.permutations("abc")))
@pytest.mark.parametrize("line", [f"deny:{USER}", "unxgrp:error"])
def test_a_denial_or_an_error_in_any_file_counts_for_more_than_a_match(
    names: tuple[str, ...], line: str, tmp_path: Path
) -> None:
    for name, text in zip(names, (ADA, USER, line), strict=True):
        (tmp_path / name).write_text(f"{text}\n")
    assert not Acl(str(tmp_path), "ANYUSER").allows(USER)


def test_a_match_in_the_same_file_before_a_denial_ends_that_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"{USER}\ndeny:{USER}\nunxgrp:error\n")
    assert Acl(str(tmp_path)).allows(USER)


# Side by side with remctld


FILES = {
    "empty": "",
    "user": "user@{realm}\n",
    "ada": "# comment\n\n   \t ada@{realm}  \r\n",
    "deny": "deny:user@{realm}\n",
    "deny-princ": "deny:princ:ada@{realm}\nANYUSER",
    "deny-any": "deny:ANYUSER\nuser@{realm}\n",
    "any": "ANYUSER\n",
    "any-case": "anyuser\nAnyUser\n",
    "auth": "anyuser:auth\n",
    "everybody": "anyuser:everybody\nANYUSER\n",
    "include": "include {at}/user\n",
    "include-princ": "include princ:user@{realm}\n",
    "include-bare": "include user@{realm}\nANYUSER\n",
    "include-any": "include ANYUSER\n",
    "include-tab": "include\t{at}/any\n",
    "include-tabs": " \tinclude \t {at}/any\t\n",
    "include-tab-method": "include\tfile:{at}/any\nANYUSER\n",
    "include-three": "include {at}/any {at}/any\nANYUSER\n",
    "include-itself": "ada@{realm}\ninclude {at}/include-itself\nANYUSER\n",
    "include-missing": "ada@{realm}\ninclude {at}/missing\nANYUSER\n",
    "include-deny": "include {at}/deny\nANYUSER\n",
    "include-folder": "include {at}/folder\n",
    "deny-include": "deny:include {at}/any\nANYUSER\n",
    "bare-path": "{at}/any\n",
    "path": "file:{at}/any\n",
    "deny-path": "deny:{at}/any\nANYUSER\n",
    "deny-file": "deny:file:{at}/ada\nANYUSER\n",
    "two-words": "user@{realm} ada@{realm}\nANYUSER\n",
    "trailing-comment": "user@{realm} # comment\nANYUSER\n",
    "unknown": "ada@{realm}\nunxgrp:x\nANYUSER\n",
    "gput": "gput:x\nANYUSER\n",
    "regex": "regex:^[a-z]+/admin@\n",
    "regex-empty": "regex:\n",
    "regex-broken": "ada@{realm}\nregex:(\nANYUSER\n",
    "nothing": "princ:\ndeny:\nlocalgroup:\nANYUSER\n",
    "no-path": "file:\nANYUSER\n",
    "colon": ":user@{realm}\nANYUSER\n",
    "group": "localgroup:daemon\n",
    "latin": "j\udcfcrgen@{realm}\n",
    "longest": "#" * 8189 + "\nANYUSER\n",
    "too-long": "#" * 8190 + "\nANYUSER\n",
    "longest-end": "deny:ada@{realm}\n" + "#" * 8190,
    "too-long-end": "deny:ada@{realm}\n" + "#" * 8191,
    "denials": "deny:" * 1500 + "user@{realm}\nANYUSER\n",
    "vertical": "\v\f user@{realm}\v\f\n\v#\nada@{realm}\u00a0\n",
    "folder/a": "user@{realm}\n",
    "folder/b": "ada@{realm}\n",
    "folder/c.bak": "unxgrp:error\n",
    "folder/sub/d": "ANYUSER\n",
    "denying/a": "ANYUSER\n",
    "denying/b": "deny:user@{realm}\n",
    "denying/c": "ANYUSER\n",
    "failing/a": "ANYUSER\n",
    "failing/b": "ada@{realm}\nunxgrp:error\n",
    "failing/c": "ANYUSER\n",
}

ATOMS = [
    "ANYUSER",
    "princ:user@{realm}",
    "princ:ada/admin@{realm}",
    "deny:ada@{realm}",
    "deny:ANYUSER",
    "deny:deny:ada@{realm}",
    "{at}/missing",
    "file:{at}/deny",
    "deny:file:{at}/deny",
    "{at}/denying",
    "file:{at}/folder/",
    "{at}/failing",
    "regex:^ada",
    "localgroup:daemon",
    "gput:role",
]

MORE = [
    "{at}/user/",
    "{at}/user/x",
    "{at}//user",
    "file:{at}/folder/sub",
    "anyuser:auth",
    "anyuser:anonymous",
    "deny:anyuser:anonymous ANYUSER",
    "deny:deny:deny:user@{realm} ANYUSER",
    "deny:file:{at}/missing ANYUSER",
    "deny:regex:admin ANYUSER",
    "regex:USER",
    "regex:^[^/]+@",
    "regex:^(.).\\1@",
    "regex:^user\\>",
    "princ:USER@{realm}",
    "princ:user",
    "princ:user@{realm}\r",
    "localgroup:no-such-group",
    "localgroup:{group}",
    "deny:localgroup:{group} ANYUSER",
    "deny:localgroup:no-such-group ANYUSER",
    "deny:localgroup:daemon ANYUSER",
]


@pytest.fixture(scope="module")
def tickets(box: Sandbox) -> dict[str, str]:
    """Give the ticket cache of each of the principals that are compared."""
    names = ["ada", "ada/admin", "daemon", "games"]
    caches = {f"{name}@{box.realm}": box.kinit(box.add_principal(name)) for name in names}
    return {box.user: box.ccache, **caches}


def test_remctld_decides_the_same(
    box: Sandbox, remctl_server: Server, tickets: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = {"at": tmp_path, "realm": box.realm, "group": "games"}
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.format(**places).encode("utf-8", "surrogateescape"))
    singles = [*ATOMS, *MORE, *(f"{{at}}/{name}" for name in FILES)]
    pairs = [" ".join(pair) for pair in itertools.permutations(ATOMS, 2)]
    acls = {f"c{number}": Acl(text.format(**places)) for number, text in enumerate([*singles, *pairs])}
    remctl_server.add_config("\n".join(f"{name} EMPTY /bin/true {acl}" for name, acl in acls.items()))

    different = []
    for principal, ccache in tickets.items():
        caplog.clear()
        with remctl.Remctl() as session:
            session.set_ccache(ccache)
            session.open(remctl_server.host, remctl_server.port, remctl_server.principal)
            for name, acl in acls.items():
                ours, theirs = acl.allows(principal), permitted(session, name)
                if ours != theirs:
                    different.append((principal, str(acl), ours, theirs))
    assert not different


def permitted(session: remctl.Remctl, name: str) -> bool:
    try:
        return session.run([name]).status == 0
    except remctl.RemctlCommandError as error:
        if error.code != ErrorCode.ACCESS:
            raise
        return False


@pytest.mark.parametrize("name", ["jürgen@SANDBOX.TEST", "a@b@c", "a b@R", NOBODY, "daemon@ELSEWHERE.TEST", "#@R", "/"])
@pytest.mark.parametrize(
    "acl",
    [
        "princ:jürgen@SANDBOX.TEST",
        "regex:^j.rgen@",
        "regex:^j..rgen@",
        "regex:^j[[:alpha:]]+@",
        "localgroup:daemon ANYUSER",
        "localgroup:no-such-group anyuser:anonymous",
    ],
)
def test_remctl_shell_decides_the_same_of_names_that_the_realm_lacks(
    name: str, acl: str, box: Sandbox, tmp_path: Path
) -> None:
    """It has remctld's code for ACLs, and believes every name; but for it, none is anonymous."""
    if name == NOBODY:
        acl = acl.replace("ANYUSER", "anyuser:anonymous")
    configuration = tmp_path / "remctl.conf"
    configuration.write_text(f"command EMPTY /bin/true {Acl(acl)}\n")
    environment = {**box.env, "SSH_CONNECTION": "127.0.0.1 1 127.0.0.1 2", "SSH_ORIGINAL_COMMAND": "command"}
    shell = [str(Path(find("remctld")).with_name("remctl-shell")), "-S", "-q", "-f", str(configuration), name]
    answer = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert answer.returncode == 0 or "Access denied" in answer.stderr
    assert Acl(acl).allows(name) == (answer.returncode == 0)
