"""Ad-hoc Python: what this version knows of it, and its module, an installed script in whose setting the code runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from remctl.jobs.scripts import AD_HOC, Language, ScriptError, verify
from remctl.jobs.settings import Settings
from remctl.jobs.store import InstalledScript, Store, StoreError


class NoModuleError(ScriptError, StoreError):
    """There is no script of that name in whose setting code can run."""

    def __init__(self, reason: str = "", **evidence: Any) -> None:
        super().__init__(reason, **{"parameter": "module", **evidence})


class Setting(NamedTuple):
    """What a module is to a job."""

    run_time: float | None
    """Seconds that the job may run; None is without limit."""
    variables: dict[str, str]
    """What the script `python` finds in its environment besides."""


def current(script: InstalledScript) -> InstalledScript:
    """Return a script with the parameters that it has now.

    Those of ad-hoc Python come with this version, as its body does; a database may have been made by one before.
    """
    return script._replace(parameters=AD_HOC.parameters) if script.name == AD_HOC.name else script


def wanted(script: str, parameters: Mapping[str, Any]) -> str | None:
    """Return the name of the module that a job wants; None if it wants none."""
    return parameters.get("module") if script == AD_HOC.name else None


def module_named(store: Store, name: str) -> InstalledScript:
    """Return a module.

    Raises:
        NoModuleError: there is no such script, it is turned off, or it is not in Python.
    """
    try:
        found = store.scripts.get(name)
    except StoreError as error:
        raise NoModuleError(error.reason) from None
    if not found.enabled:
        raise NoModuleError(f"the script {name!r} is turned off")
    if found.name == AD_HOC.name or found.language is not Language.PYTHON:
        what = "stands for code itself" if found.name == AD_HOC.name else f"is written in {found.language.value}"
        raise NoModuleError(f"the script {name!r} {what}: code runs in the setting of a script in Python")
    return found


def lay_out(store: Store, settings: Settings, name: str, folder: Path) -> Setting:
    """Put a module, as it is installed now, into the folder of an attempt.

    Raises:
        NoModuleError: see `module_named`.
        ScriptError: its file is not what was installed.
    """
    module = module_named(store, name)
    body = verify(settings.scripts / module.filename, module.sha256)
    file = folder / f"module-{module.filename}"  # which nothing imports by mistake: the folder is on Python's path
    file.touch(mode=0o600)
    file.write_bytes(body)
    return Setting(module.run_time, {"JOB_MODULE": str(file)})
