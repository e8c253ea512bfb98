"""The keeper: one small process for each attempt, which starts a script, watches it, and leaves its ending on disk.

`python -m remctl.jobs.attempt.keeper` works, but `Attempt` runs this file by its path, with `-I -S`: neither `site` nor
the package itself is loaded then, which would take ten times as long as all the rest.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Keep one script; the arguments are the number of the control socket's descriptor and the attempt's folder."""
    if len(sys.argv) != 3 or not sys.argv[1].isdecimal():
        sys.exit("usage: keeper DESCRIPTOR FOLDER (it is started by remctl.jobs, not by hand)")

    from remctl.jobs.attempt._keeping import keep

    keep(int(sys.argv[1]), sys.argv[2])


def _stand_in() -> None:
    """Make packages without contents, in which modules are found as usual."""
    from types import ModuleType

    name, folder = "remctl.jobs.attempt", __file__.rpartition("/")[0]
    while name:
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [folder]
        name, folder = name.rpartition(".")[0], folder.rpartition("/")[0]


if __name__ == "__main__":
    if "remctl" not in sys.modules:
        _stand_in()
    main()
