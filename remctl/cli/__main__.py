"""`python -m remctl.cli`: the same as `pyremctl`."""

import sys

from remctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
