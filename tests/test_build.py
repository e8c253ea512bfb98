"""Building from source: what is missing is said in one sentence, and the wheel holds everything."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "dist", "tests", "docs", "benchmarks", "*.egg-info", "*.so", "*.o", "_libremctl.c", "__pycache__"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a fresh copy of the source, to build in."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "copy", ignore=LEFT_OUT))


@pytest.fixture(scope="module")
def distributions(source: Path) -> Path:
    """Give the folder with the source distribution, and with the wheel that was built from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist"]
    answer = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    """Give the wheel."""
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the wheel unpacked as pip does."""
    folder = tmp_path_factory.mktemp("installed")
    options: list[str | Path] = ["--quiet", "--no-deps", "--no-index", "--target", folder]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    return folder


# What is missing


def build(source: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build the extension."""
    command = [sys.executable, "setup.py", "build_ext"]
    return subprocess.run(
        command, cwd=source, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def sentence(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line that a build that failed ends with."""
    assert answer.returncode != 0
    assert "Traceback" not in answer.stderr
    (line,) = [line for line in answer.stderr.splitlines() if "libremctl" in line]
    assert answer.stderr.endswith(f"{line}\n")
    return line


def test_missing_headers_are_named_with_their_package(source: Path, tmp_path: Path) -> None:
    answer = build(source, {"PKG_CONFIG_LIBDIR": str(tmp_path), "PKG_CONFIG_PATH": str(tmp_path)})
    assert sentence(answer) == (
        "remctl-cffi needs the headers of libremctl, and pkg-config does not find them: "
        "install them (Debian and Ubuntu: apt-get install libremctl-dev pkg-config) and build again."
    )


def test_a_missing_pkg_config_is_named_with_its_package(source: Path, tmp_path: Path) -> None:
    answer = build(source, {"PATH": str(tmp_path)})
    assert sentence(answer) == (
        "remctl-cffi needs the headers of libremctl, and pkg-config is not installed: "
        "install them (Debian and Ubuntu: apt-get install libremctl-dev pkg-config) and build again."
    )


# What is built


@pytest.mark.timeout(300)
def test_the_wheel_fits_every_supported_python(wheel: Path) -> None:
    name, _, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == ("remctl_cffi", "cp311", "abi3")
    assert platform.startswith(("linux_", "macosx_"))


@pytest.mark.timeout(300)
def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "remctl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".so", ".c", ".o")
    }
    assert ours - names == set()
    assert {"_remctl.py", "remctl/py.typed", "remctl/_libremctl.abi3.so", "remctl/testing/example-commands.sh"} <= names


@pytest.mark.timeout(300)
def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    (metadata,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"remctl", "_remctl.py", metadata}


@pytest.mark.timeout(300)
def test_the_wheel_carries_license_commands_and_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        points = archive.read(texts["entry_points.txt"]).decode()
        metadata = archive.read(texts["METADATA"]).decode()
    assert "licenses/LICENSE" in texts
    assert "remctl-sandbox = remctl.testing.command:main" in points
    assert "remctl = remctl.testing.plugin" in points
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required == ["Requires-Dist: cffi>=1.16"]


@pytest.mark.timeout(300)
def test_the_source_distribution_holds_what_the_build_needs(distributions: Path) -> None:
    (found,) = distributions.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "src_c").iterdir() if path.is_file()}
    assert sources | {"setup.py", "pyproject.toml", "README.md", "LICENSE", "_remctl.py"} <= names


# What is installed


@pytest.mark.timeout(300)
def test_an_installed_wheel_works_by_itself(installed: Path) -> None:
    code = (
        "import _remctl, remctl, remctl._libremctl as binding; "
        "print(_remctl is remctl._remctl, remctl.__file__, binding.__file__)"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=installed)
    package = installed / "remctl"
    assert answer.stdout == f"True {package / '__init__.py'} {package / '_libremctl.abi3.so'}\n"


@pytest.mark.timeout(300)
def test_an_installed_wheel_brings_the_sandbox(installed: Path) -> None:
    program = installed / "bin" / "remctl-sandbox"
    client = "remctl -p $REMCTL_SANDBOX_PORT $REMCTL_SANDBOX_HOST example hello"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    answer = subprocess.run(
        [program, "--", "sh", "-c", client], env=environment, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "hello world\n", "")


@pytest.mark.timeout(300)
def test_the_example_commands_can_be_run_where_they_are_installed(installed: Path) -> None:
    mode = (installed / "remctl" / "testing" / "example-commands.sh").stat().st_mode
    assert mode & stat.S_IXUSR
    assert mode & stat.S_IXOTH
