"""The main job on real servers, step by step: `make demo`, or `python -m remctl.testing.demo`.

What is printed as code is what runs, a statement at a time as at Python's prompt; below each stands what came back.
"""

from __future__ import annotations

import ast
import code
import sys
import textwrap
import traceback
from typing import Final, NamedTuple

from remctl.testing import Sandbox, SandboxError


class Step(NamedTuple):
    """One thing to show."""

    title: str
    source: str
    errors: tuple[str, ...] = ()
    """Classes of the errors that its statements raise."""


STEPS: Final = (
    Step(
        "One call: connect, authenticate, run a command",
        """
        import pathlib, remctl
        remctl.remctl(host, port, command=["example", "hello"])
        """,
    ),
    Step(
        "A session: several commands over one connection, the last one with a file as its input",
        """
        session = remctl.Remctl(host, port, timeout=30)
        session.run(["example", "echo", "several", "words"]).stdout
        data = pathlib.Path(remctl.__file__).read_bytes()
        session.run(["example", "cat", data]).stdout == data
        """,
    ),
    Step(
        "Streaming: each token as it comes, from both of the command's streams",
        """
        for token in session.stream(["example", "count", 3]):
            if token.type == "output":
                print(token.stream.name, token.output)
            else:
                print("status", token.status)
        sum(len(token.output or b"") for token in session.stream(["example", "bytes", 100_000_000]))
        """,
    ),
    Step(
        "An exit status: part of the result, or an error where it is checked",
        """
        session.run(["example", "status", 3])
        session.run(["example", "status", 3], check=True)
        """,
        ("RemctlStatusError",),
    ),
    Step(
        "A command that the server refuses; the session goes on",
        """
        try:
            session.run(["no-such", "command"])
        except remctl.RemctlCommandError as error:
            print(repr(error.code), error, sep="\\n")
        session.run(["example", "hello"]).stdout
        session.close()
        """,
    ),
)


class Prompt(code.InteractiveInterpreter):
    """Runs statements as Python's prompt does, but prints an error without its traceback."""

    errors: list[str]

    def show(self, step: Step) -> None:
        """Print and run a step's statements, and note the classes of their errors."""
        self.errors = []
        source = textwrap.dedent(step.source)
        for statement in ast.parse(source).body:
            text = ast.get_source_segment(source, statement) or ""
            print(">>>", text.replace("\n", "\n... "))
            self.runsource(f"{text}\n", symbol="single")

    def showtraceback(self) -> None:
        """Print the error that is being handled; what is no `Exception` (Ctrl-C) goes on."""
        error = sys.exc_info()[1]
        if not isinstance(error, Exception):
            raise
        self.errors.append(type(error).__name__)
        print("".join(traceback.format_exception_only(error)), end="")


def main() -> None:
    """Show all steps; exit with status 1 when one does not go as it should, or no sandbox comes up."""
    print("Starting a Kerberos realm and a remctl server for this demonstration alone ...")
    try:
        with Sandbox() as box:
            box.add_examples()
            prompt = Prompt({"host": box.host, "port": box.port})
            for number, step in enumerate(STEPS, 1):
                print(f"\n{number}. {step.title}\n")
                prompt.show(step)
                if prompt.errors != [*step.errors]:
                    sys.exit("\nThis went wrong.")
    except SandboxError as error:
        sys.exit(f"{error}")
    print("\nNext: .venv/bin/remctl-sandbox opens a shell beside such a server, to try things in.")


if __name__ == "__main__":
    main()
