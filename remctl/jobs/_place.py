"""Where the configuration is looked for; by itself, since programs that are started for each command load little."""

from typing import Final

FILE: Final = "jobs.toml"

VARIABLE: Final = "REMCTL_JOBS_CONFIG"
"""The variable that names another one than the default."""

REMOTE: Final = "REMCTL_JOBS_REMOTE"
"""The variable that is set where people from elsewhere call, whose principals have to be known."""

DEFAULT: Final = f"/etc/remctl/jobs/{FILE}"
