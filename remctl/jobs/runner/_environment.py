"""All that a script finds in its environment."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from remctl.jobs.scripts import Parameters
from remctl.jobs.store import Claim, account_of

logger = logging.getLogger(__name__)

PARAMETERS: Final = "parameters.json"
"""The file of all parameters, in an attempt's folder."""

PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def environment(claim: Claim, password: str, work: Path, parameters: Parameters, url: str) -> dict[str, str]:
    """Return the environment, and write the file of all parameters: those that are secret stand there alone.

    Args:
        claim: the job and its attempt.
        password: which the attempt alone reports with.
        work: where the script begins; the file is beside it.
        parameters: of the script, as it is installed.
        url: what the server is reached by.
    """
    job = claim.job
    values = {**job.parameters, **claim.secrets}
    file = work.parent / PARAMETERS
    file.touch(mode=0o600)
    file.write_text(parameters.as_json(values))
    return {
        "PATH": PATH,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "JOB_ID": str(job.id),
        "JOB_GUID": job.guid,
        "JOB_ATTEMPT": str(claim.number),
        "JOB_SCRIPT": job.script,
        "JOB_OWNER": job.owner,
        "JOB_REPORT_URL": f"{url}/api/xmlrpc",
        "JOB_ACCOUNT": account_of(claim.attempt),
        "JOB_PASSWORD": password,
        "JOB_PARAMETERS": str(file),
        **parameters.as_environment(values),
    }


def forget_parameters(kept: Path) -> None:
    """Remove the file of an attempt that has ended in which its secrets are."""
    try:
        (kept.parent / PARAMETERS).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the parameters of an attempt cannot be removed: %s", error)
