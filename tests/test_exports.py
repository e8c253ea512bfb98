"""What `import remctl` gives, and what it does not load."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.metadata
import importlib.resources
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import remctl
import remctl.aio
import remctl.protocol

DESIGNED = {
    "Remctl",
    "remctl",
    "RemctlSimpleResult",
    "Result",
    "Output",
    "OutputType",
    "Stream",
    "ErrorCode",
    "RemctlError",
    "RemctlNotOpenedError",
    "RemctlStatusError",
    "RemctlProtocolError",
    "RemctlConnectionError",
    "RemctlAuthenticationError",
    "RemctlTimeoutError",
    "RemctlCommandError",
}

SESSION = {"open", "command", "output", "close", "error", "noop", "run", "stream"} | {
    "set_source_ip",
    "set_ccache",
    "set_timeout",
}

LOW_LEVEL = {
    "remctl",
    "remctl_close",
    "remctl_command",
    "remctl_commandv",
    "remctl_error",
    "remctl_new",
    "remctl_noop",
    "remctl_open",
    "remctl_output",
    "remctl_set_ccache",
    "remctl_set_source_ip",
    "remctl_set_timeout",
}

MODULES = [
    "remctl",
    "remctl.acl",
    "remctl.aio",
    "remctl.aio.client",
    "remctl.aio.server",
    "remctl.backend",
    "remctl.exceptions",
    "remctl.fanout",
    "remctl.fanout.aio",
    "remctl.jobs.aio",
    "remctl.jobs.client",
    "remctl.protocol",
    "remctl.security",
    "remctl.session",
    "remctl.testing",
    "remctl.types",
    "remctl._remctl",
]

PURE = {"asyncio", "gssapi", "select", "selectors", "socket", "threading", "time"}
"""What the protocol core has no part in."""


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_package_exposes_what_it_lists() -> None:
    public = {
        name
        for name, value in vars(remctl).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(remctl.__all__)


def test_nothing_is_listed_twice() -> None:
    assert len(set(remctl.__all__)) == len(remctl.__all__)


def test_every_designed_name_is_there() -> None:
    assert set(remctl.__all__) >= DESIGNED


def test_a_session_has_every_designed_method() -> None:
    assert {name for name in SESSION if callable(getattr(remctl.Remctl, name, None))} == SESSION


def test_the_two_sessions_have_the_same_methods_with_the_same_arguments() -> None:
    blocking, asynchronous = (
        {
            name: list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }
        for cls in (remctl.Remctl, remctl.aio.Remctl)
    )
    del blocking["fileno"]  # which is what the event loop is for
    assert asynchronous.pop("open") == [*blocking.pop("open"), "sock"]
    assert asynchronous == blocking
    one, other = (list(inspect.signature(call).parameters) for call in (remctl.remctl, remctl.aio.remctl))
    assert other == [*one, "credentials", "sock"]


@pytest.mark.parametrize("path", sorted(Path(remctl.protocol.__path__[0]).glob("*.py")), ids=lambda path: path.name)
def test_the_protocol_core_has_no_socket_no_clock_and_no_gssapi(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported & PURE == set()


def test_the_low_level_interface_has_every_function_of_the_stock_binding() -> None:
    low = importlib.import_module("_remctl")
    assert {name for name in LOW_LEVEL if callable(getattr(low, name, None))} == LOW_LEVEL


def test_the_names_of_the_stock_binding_are_there() -> None:
    assert remctl.RemctlOutput is remctl.Output
    assert remctl.__version__ == remctl.VERSION


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module: str) -> None:
    found = importlib.import_module(module)
    assert found.__doc__
    described = [
        getattr(found, name)
        for name in found.__all__
        if inspect.isclass(getattr(found, name)) or inspect.isfunction(getattr(found, name))
    ]
    bare = [thing.__name__ for thing in described if not inspect.getdoc(thing) or not thing.__doc__]
    assert bare == []


@pytest.mark.parametrize("module", MODULES)
def test_every_public_method_has_a_docstring(module: str) -> None:
    found = importlib.import_module(module)
    bare = [
        f"{name}.{member}"
        for name in found.__all__
        if inspect.isclass(cls := getattr(found, name)) and cls.__module__.startswith("remctl")
        for member, value in vars(cls).items()
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property | classmethod))
        if not inspect.getdoc(value)
    ]
    assert bare == []


@pytest.mark.parametrize("module", MODULES)
def test_a_star_import_brings_what_is_listed(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


def test_the_low_level_module_is_found_by_its_stock_name() -> None:
    assert run("import _remctl, remctl._remctl; print(_remctl is remctl._remctl)") == "True\n"


def test_the_low_level_module_may_come_first() -> None:
    assert run("import _remctl; import remctl; print(_remctl.__name__)") == "remctl._remctl\n"


def test_the_version_is_the_distributions() -> None:
    assert remctl.__version__ == remctl.VERSION == importlib.metadata.version("remctl-cffi")


def test_the_version_is_a_plain_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", remctl.__version__)


@pytest.mark.parametrize(
    "stranger",
    [
        "asyncio",
        "gssapi",
        "k5test",
        "krb5",
        "pytest",
        "remctl.acl",
        "remctl.aio",
        "remctl.backend",
        "remctl.fanout",
        "remctl.protocol",
        "remctl.security",
        "remctl.testing",
    ],
)
def test_importing_the_package_does_not_load(stranger: str) -> None:
    assert run(f"import remctl, sys; print({stranger!r} in sys.modules)") == "False\n"


@pytest.mark.parametrize("stranger", ["argparse", "asyncio", "gssapi", "remctl.aio", "remctl.security"])
def test_importing_the_frame_for_commands_does_not_load(stranger: str) -> None:
    assert run(f"import remctl.backend, sys; print({stranger!r} in sys.modules)") == "False\n"


@pytest.mark.parametrize("stranger", ["k5test", "pytest"])
def test_importing_the_sandbox_does_not_load(stranger: str) -> None:
    assert run(f"import remctl.testing, sys; print({stranger!r} in sys.modules)") == "False\n"


def test_a_wildcard_import_hides_no_builtin() -> None:
    assert set(remctl.__all__).isdisjoint(dir(builtins))


def test_the_package_is_marked_as_typed() -> None:
    files = importlib.resources.files("remctl")
    assert files.joinpath("py.typed").is_file()
