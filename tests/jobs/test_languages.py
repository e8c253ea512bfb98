"""The four languages: how each is told, run and checked, with the real interpreters."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remctl.jobs.scripts import Language, ScriptError, _languages
from remctl.jobs.scripts._languages import guess, language_named

GOOD = {
    Language.PYTHON: b"import sys\nprint(sys.argv[1], 'python')\n",
    Language.BASH: b'for word in "$@"; do\n  echo "$word" bash\ndone\n',
    Language.PERL: b"use strict;\nuse warnings;\nprint \"$ARGV[0] perl\\n\";\n",
    Language.GROOVY: b'#!/usr/bin/env groovy\n// a comment\nprintln "${args[0]} groovy"\n',
}  # fmt: skip
BAD = {
    Language.PYTHON: (b"import sys\nif True\n    pass\n", 2, "expected ':'"),
    Language.BASH: (b"echo a\n\nfi\n", 3, "syntax error near unexpected token `fi'"),
    Language.PERL: (b"use strict;\nmy $x = 1;\nif ($x {\n}\n", 3, 'Global symbol "%x" requires explicit package name'),
    Language.GROOVY: (b'println "a"\n\ndef x = )\n', 3, "unexpected token: )"),
}


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """Give a folder that everybody can write in, nobody too; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)


def refusal(language: Language, body: bytes) -> ScriptError:
    with pytest.raises(ScriptError) as caught:
        language.check(body)
    assert "\n" not in str(caught.value)
    return caught.value


# Which it is


@pytest.mark.parametrize(
    ("name", "first", "language"),
    [
        ("x.py", "", Language.PYTHON),
        ("x.sh", "echo", Language.BASH),
        ("x.bash", "# x", Language.BASH),
        ("x.pl", "", Language.PERL),
        ("x.groovy", "// /// job", Language.GROOVY),
        ("x", "#!/usr/bin/python3", Language.PYTHON),
        ("x", "#! /usr/bin/python3.12 -I\r", Language.PYTHON),
        ("x", "#!/usr/bin/env -S -i A=b python3 -u", Language.PYTHON),
        ("x", "#!/bin/sh", Language.BASH),
        ("x.txt", "#!/usr/bin/perl -w", Language.PERL),
        ("x", "#!/usr/bin/env groovy", Language.GROOVY),
        ("x.sh", "#!/bin/bash -e", Language.BASH),
    ],
)
def test_suffix_or_shebang_tells_the_language(name: str, first: str, language: Language) -> None:
    assert guess(name, first) is language


@pytest.mark.parametrize(
    ("name", "first", "message"),
    [
        ("x", "", "neither a suffix nor a #! line tells its language; give --language"),
        ("x.rb", "puts", "neither a suffix nor a #! line tells its language"),
        ("x.PY", "", "neither a suffix nor a #! line tells its language"),
        ("x.py", "#!/bin/bash", "line 1: its #! line is for bash, and its suffix is .py; mend it, or give --language"),
        ("x.py", "#!/usr/bin/ruby", "line 1: its #! line names 'ruby', and no python, bash, perl, groovy"),
        ("x.py", "#!/usr/bin/python2", "line 1: its #! line names 'python2', and no"),
        ("x", "#!", "line 1: its #! line names '', and no"),
        ("x", "#!/usr/bin/env", "line 1: its #! line names '', and no"),
        ("x", "#!/usr/bin/\x1b[2J", "line 1: its #! line names '\\x1b[2J', and no"),
    ],
)
def test_none_or_two_languages_are_an_error(name: str, first: str, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        guess(name, first)
    assert str(caught.value).startswith(message)


def test_a_language_has_a_name() -> None:
    assert language_named("perl") is Language.PERL
    with pytest.raises(ScriptError, match=r"^language must be one of python, bash, perl, groovy: 'ruby'$"):
        language_named("ruby")


# How it is run


@pytest.mark.parametrize("language", Language)
def test_its_command_line_runs_a_file(language: Language, tmp_path: Path) -> None:
    path = tmp_path / f"disk-report{language.suffix}"
    path.write_bytes(GOOD[language])
    ran = subprocess.run([*language.command(path), "word"], env={}, cwd="/", capture_output=True, check=True)
    assert ran.stdout.decode() == f"word {language.value}\n"


def test_interpreters_are_not_looked_for_in_the_callers_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bash"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(Language.BASH.interpreter).parent in map(Path, _languages.FOLDERS)


def test_a_language_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(_languages._ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(ScriptError, match=r"^groovy is not installed: there is no groovy in "):
        Language.GROOVY.check(b"")


# How its syntax is checked


@pytest.mark.parametrize("language", Language)
def test_a_good_script_passes_and_is_not_run(language: Language, everybodys: Path) -> None:
    path = everybodys / "made"
    writes = {
        Language.PYTHON: f"open({str(path)!r}, 'w')\n",
        Language.BASH: f": > {path}\n",
        Language.PERL: f"open(my $f, '>', '{path}');\n",
        Language.GROOVY: f"new File('{path}').createNewFile()\n",
    }
    language.check(GOOD[language] + writes[language].encode())
    assert not path.exists()


@pytest.mark.parametrize("language", Language)
def test_a_syntax_error_names_the_line(language: Language) -> None:
    body, line, message = BAD[language]
    error = refusal(language, body)
    assert error.line == line
    assert error.reason.startswith(f"{language.value} cannot read it: {message}")


@pytest.mark.parametrize("language", Language)
def test_an_empty_script_is_good_syntax(language: Language) -> None:
    language.check(b"\n")


@pytest.mark.parametrize("language", [Language.PYTHON, Language.PERL, Language.GROOVY])
def test_lines_may_end_in_cr_lf(language: Language) -> None:
    language.check(GOOD[language].replace(b"\n", b"\r\n"))
    assert refusal(language, BAD[language][0].replace(b"\n", b"\r\n")).line == BAD[language][1]


@pytest.mark.parametrize("body", [b"x = '\\d'\n", b"assert (1, 'x')\n", b"x is 1\n"])
def test_what_python_only_warns_of_is_good(body: bytes) -> None:
    Language.PYTHON.check(body)


@pytest.mark.parametrize("body", [b"(" * 100_000, b"-" * 900_000 + b"1", b"x = 1\n" + b"[" * 50_000 + b"]" * 50_000])
def test_what_is_nested_too_deep_for_python_is_an_error(body: bytes) -> None:
    assert str(refusal(Language.PYTHON, body))


def test_perls_warnings_are_no_errors_and_do_not_hide_one() -> None:
    Language.PERL.check(b"use warnings;\nmy $x; my $x;\n")
    assert refusal(Language.PERL, b"use warnings;\nmy $x; my $x;\n\n}\n").line == 4


def test_a_module_that_perl_does_not_find_is_an_error() -> None:
    error = refusal(Language.PERL, b"use strict;\nuse No::Such::Module;\n")
    assert error.line == 2
    assert error.reason.startswith("perl cannot read it: Can't locate No/Such/Module.pm")


def test_what_stands_behind_the_end_of_a_perl_script_is_data() -> None:
    Language.PERL.check(b"print <DATA>;\n__END__\nif (\n")


# Perl runs parts of what it reads


def test_a_begin_block_cannot_write_a_file(tmp_path: Path) -> None:
    """It runs, and its process is killed when it writes, or cannot open the file where it is nobody."""
    path = tmp_path / "written"
    error = refusal(
        Language.PERL,
        f'BEGIN {{ open(my $f, ">", "{path}") or die "no file"; print $f "x" x 9999; close $f; }}\n'.encode(),
    )
    if os.geteuid() == 0:
        assert "perl cannot read it: no file" in str(error)
        assert not path.exists()
    else:
        assert "perl was ended by SIGXFSZ" in str(error)
        assert path.read_bytes() == b""


def test_a_begin_block_that_may_open_a_file_writes_no_byte_into_it(everybodys: Path) -> None:
    path = everybodys / "written"
    body = f'BEGIN {{ open(my $f, ">", "{path}") or die "no file"; print $f "x" x 9999; close $f; }}\n'
    error = refusal(Language.PERL, body.encode())
    assert str(error) == (
        "perl was ended by SIGXFSZ while it read the script:"
        " what runs while it is read (BEGIN, use) must not write files"
    )
    assert path.read_bytes() == b""


def test_a_begin_block_sees_none_of_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "here")
    monkeypatch.setenv("PERL5LIB", "/nonexistent")
    error = refusal(Language.PERL, b'BEGIN { die join(" ", sort keys %ENV) }\n')
    assert "CANARY" not in str(error)
    assert "PERL5LIB" not in str(error)
    assert "HOME" in str(error)


def test_a_begin_block_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_languages, "TIME_LIMIT", 0.5)
    error = refusal(Language.PERL, b"BEGIN { $SIG{TERM} = 'IGNORE'; sleep 1 while 1 }\n")
    assert str(error) == f"it cannot be checked: {Language.PERL.interpreter} has not read it within 0 s"


def test_a_begin_block_that_does_not_stop_talking_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_languages, "TIME_LIMIT", 0.5)
    assert "has not read it within" in str(refusal(Language.PERL, b"BEGIN { print STDERR 'x' x 9999 while 1 }\n"))


def test_what_a_begin_block_leaves_behind_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    """The child holds the pipe open; it has gone when the check returns, or is about to."""
    began = time.monotonic()
    error = refusal(
        Language.PERL,
        b'BEGIN { my $child = fork // die "no fork"; if (!$child) { sleep 600; exit } die "child $child.\n" }\n',
    )
    assert time.monotonic() - began < 20
    child = int(str(error).rpartition("child ")[2].split(".")[0])
    _wait_until_gone(child)


def _wait_until_gone(process: int) -> None:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(20_000)
    finally:
        os.close(handle)


def test_a_begin_block_that_ends_perl_hides_what_comes_behind_it() -> None:
    """Perl says that the syntax is good: the check helps those who make mistakes, and is no defence."""
    Language.PERL.check(b"BEGIN { exit 0 }\nif (\n")


def test_a_begin_block_may_talk() -> None:
    Language.PERL.check(b"BEGIN { print 'x'; print STDERR 'x' x 9999 }\n")


def test_a_crash_is_an_error() -> None:
    assert "ended by SIGSEGV" in str(refusal(Language.PERL, b"BEGIN { kill %d, $$ }\n" % signal.SIGSEGV))


# Groovy might


def test_groovys_transformations_do_not_run(everybodys: Path) -> None:
    path = everybodys / "written"
    body = f"""import groovy.transform.ASTTest
        @ASTTest(value = {{ new File("{path}").createNewFile() }})
        class A {{}}
        """
    Language.GROOVY.check(body.encode())  # it ends before the phase in which the first of them run
    assert not path.exists()


def test_groovy_fetches_nothing_from_the_network() -> None:
    Language.GROOVY.check(b"@Grab('no.such:library:1')\nimport no.such.Thing\nprintln 1\n")


# Who reads it


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_root_is_nobody_while_it_checks() -> None:
    assert "65534 65534 65534" in str(refusal(Language.PERL, b'BEGIN { die "$< $> $(" }\n'))


def test_no_file_descriptor_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    Language.BASH.check(b"echo\n")
    refusal(Language.BASH, b"fi\n")
    assert sorted(os.listdir("/proc/self/fd")) == before
