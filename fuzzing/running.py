"""What the fuzzers have in common: their command line, and where their corpus and their findings are.

python fuzzing/fuzz_NAME.py SECONDS [options of libFuzzer]
python fuzzing/fuzz_NAME.py SECONDS FILE       runs one input again, such as a finding
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent


def run(name: str, test: Callable[[bytes], None]) -> None:
    """Fuzz for as many seconds as the command line says, and exit: with 0 if nothing was found.

    A finding's input is in fuzzing/findings; inputs that reach new code gather in fuzzing/corpus, and the next run
    begins with them.

    Args:
        name: the fuzzer's.
        test: what is called with each input; whatever it raises is a finding.
    """
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal():
        sys.exit(f"usage: python fuzzing/fuzz_{name}.py SECONDS [FILE] [-option=value...]")
    seconds, *rest = sys.argv[1:]
    corpus, findings = HERE / "corpus" / name, HERE / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    inputs = [] if any(not option.startswith("-") for option in rest) else [str(corpus)]
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=400",
            "-len_control=0",
            f"-artifact_prefix={findings}/{name}-",
            *rest,
            *inputs,
        ],
        test,
    )
    atheris.Fuzz()
