"""`python -m remctl.jobs.cli`: the same as `remctl-jobs`."""

import sys

from remctl.jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
