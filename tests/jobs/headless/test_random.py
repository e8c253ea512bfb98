"""Random command lines: nothing but the exit codes comes of them.

In a module of its own, since the runner of the others' server takes random numbers while Hypothesis does.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.headless.place import ENVIRONMENT, run
from remctl.jobs.headless import Code, HeadlessError
from remctl.jobs.headless._options import parsed

LIKELY = """
-h -q -v -s -t -u -a -p -i -m -f -c --help --version --quiet --verbose --service --timeout --user --auth_type --secret
--individual_parameters --module --py_file --py_code --principal --output --lock --syslog -1 0 osuser challenge
localhost:1 [::1]:1 -- - -vvq /dev/null /dev/zero /proc/self/mem --lock=/dev/null --syslog=x -slocalhost:1 -mx
--service=localhost:1
"""

WORD = st.one_of(
    st.sampled_from(LIKELY.split()),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10),
    st.binary(max_size=6).map(lambda data: os.fsdecode(data.replace(b"\0", b""))),
)


@settings(max_examples=400, deadline=None, database=None)
@given(words=st.lists(WORD, max_size=8))
def test_they_are_understood_or_refused(words: list[str]) -> None:
    refused = None
    try:
        parsed(words)
    except HeadlessError as error:
        refused = error
    assert refused is None or (refused.code is Code.PARAMETER and str(refused))


def test_they_lead_to_an_exit_code(tmp_path: Path) -> None:
    codes: list[int] = []

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(words=st.lists(WORD, max_size=6))
    def tried(words: list[str]) -> None:
        server = ("-s", "localhost:1") if len(codes) % 2 else ()
        codes.append(run(ENVIRONMENT, *words, *server, cwd=tmp_path).returncode)

    tried()
    assert set(codes) <= set(Code)
    assert len(codes) >= 30
