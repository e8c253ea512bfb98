"""`python -m remctl.jobs.headless`: the same as `remctl-headless`."""

from remctl.jobs.headless import main

if __name__ == "__main__":
    main()
