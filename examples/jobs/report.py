#!/usr/bin/env python3
# /// job
# description = "Report the largest file in a folder (Python)."
# run-time = 60
#
# [parameters.folder]
# type = "text"
# default = "/var/log"
# ///
"""Finds the largest file in a folder, and reports it; with Python's standard library alone."""

import base64
import os
import sys
from xmlrpc.client import Binary, Error, ServerProxy


def report(success: bool, text: str) -> None:
    """Report how the job has ended; raises OSError or xmlrpc.client.Error if that does not arrive."""
    # The password stands in a header and not in the URL, which error messages show.
    account = f"{os.environ['JOB_ACCOUNT']}:{os.environ['JOB_PASSWORD']}"
    header = ("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    # Bytes, which are sent as base64, arrive whatever is in them; a string of XML must not have control characters.
    information = Binary(text.encode("utf-8", "surrogateescape"))
    with ServerProxy(os.environ["JOB_REPORT_URL"], headers=[header]) as server:
        if not server.postInformation(int(os.environ["JOB_ID"]), success, information):
            raise OSError("the report came too late")


def largest(folder: str) -> str:
    """Return the size and the name of the largest file."""
    files = [entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    if not files:
        raise OSError(f"there is no file in {folder}")
    found = max(files, key=lambda entry: entry.stat().st_size)
    return f"{found.stat().st_size} bytes: {found.name}"


try:
    success, text = True, largest(os.environ["JOB_PARAM_FOLDER"])
except OSError as error:
    success, text = False, str(error)

try:
    report(success, text)
except (OSError, Error) as error:  # xmlrpc.client.Error: a fault, or an answer that is not 200
    sys.exit(f"not reported: {error}")
sys.exit(0 if success else 1)
