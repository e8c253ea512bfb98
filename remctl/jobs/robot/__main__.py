"""`python -m remctl.jobs.robot`: the same as `remctl-robot`.

Run by its path, `python FOLDER/remctl/jobs/robot`, it needs httpx and psutil and nothing that was built: this is for
machines that have no libremctl, as those with Windows.
"""

import sys
from pathlib import Path
from types import ModuleType


def _stand_in() -> None:
    """Make packages without contents, in which modules are found as usual: the real ones load libremctl."""
    folder = Path(__file__).resolve().parents[2]
    for name, path in (("remctl", folder), ("remctl.jobs", folder / "jobs")):
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(path)]


if __name__ == "__main__":
    if "remctl" not in sys.modules:
        _stand_in()
    from remctl.jobs.robot import main

    sys.exit(main())
