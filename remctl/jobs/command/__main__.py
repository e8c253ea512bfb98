"""What remctld runs: `python -m remctl.jobs.command`."""

from remctl.jobs.command import main

main()
