"""Builds remctl._libremctl: cffi in API mode over the system's libremctl, found with pkg-config.

setuptools calls it through setup.py.  The cdef is libremctl.cdef.txt, the C beside it is described
in glue.h.
"""

import pathlib
import subprocess

import cffi

HERE = pathlib.Path(__file__).resolve().parent
MISSING = (
    "remctl-cffi needs the headers of libremctl, and {problem}: "
    "install them (Debian and Ubuntu: apt-get install libremctl-dev pkg-config) and build again."
)


def pkg_config(*arguments: str) -> list[str]:
    """Return what pkg-config prints for libremctl; stop the build with one sentence if it cannot."""
    command = ["pkg-config", *arguments, "libremctl"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(MISSING.format(problem="pkg-config is not installed")) from None
    if answer.returncode != 0:
        raise SystemExit(MISSING.format(problem="pkg-config does not find them"))
    return answer.stdout.split()


def values(arguments: list[str], option: str) -> list[str]:
    """Return what follows a one-letter option like -I in a compiler's arguments."""
    return [word.removeprefix(option) for word in arguments if word.startswith(option)]


ffi = cffi.FFI()
ffi.cdef((HERE / "libremctl.cdef.txt").read_text())
compile_flags = pkg_config("--cflags")
link_flags = pkg_config("--libs")
ffi.set_source(
    "remctl._libremctl",
    '#include <netdb.h>\n#include "glue.h"\n',
    sources=[f"src_c/{name}.c" for name in ("signals", "session", "job", "relay", "regex", "group")],
    include_dirs=["src_c", *values(compile_flags, "-I")],
    library_dirs=values(link_flags, "-L"),
    libraries=values(link_flags, "-l"),
    extra_compile_args=["-Wall", "-Wextra", "-Wno-unused-parameter"],
)
