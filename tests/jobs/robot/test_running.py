"""Scripts that run, under both twins: what they leave behind is dead, and what they print is bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.attempts import LIMIT, lives
from jobs.robot.doubles import Orchestrator
from jobs.robot.sites import SCRIPT, Site
from jobs.runners import until
from remctl.jobs.robot._running import LOST, OUTPUT, End, Order, Running, Runs
from remctl.jobs.robot._running_posix import KeptRuns
from remctl.jobs.robot._running_windows import Family, WindowsRuns
from remctl.jobs.states import JobState

S = JobState

TREE = """
child = subprocess.Popen([sys.executable, "-c", {code!r}], {options})
say(child.pid)
"""

SLEEPS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"


class Trials:
    """Runs scripts in folders of their own."""

    def __init__(self, runs: Runs, folder: Path) -> None:
        self.runs = runs
        self.folder = folder
        self.made: list[Running] = []

    def begin(self, body: str, **options: Any) -> Running:
        script = self.folder / "script.py"
        script.write_text(SCRIPT.format(site=str(self.folder)) + body)
        values = {"run_time": None, "grace": 0.3, **options}
        order = Order(
            self.folder / f"run{len(self.made)}", [sys.executable, str(script)], {"PATH": "/bin"}, self.folder, **values
        )
        self.made.append(self.runs.prepare(order))
        self.made[-1].release()
        return self.made[-1]

    def said(self) -> list[int]:
        path = self.folder / "ran"
        return [int(each) for each in until(lambda: path.read_text().splitlines() if path.exists() else [])]


def ended(running: Running) -> End:
    end = running.wait(LIMIT)
    assert end is not None
    assert running.wait(0) == end
    return end


@pytest.fixture(params=[KeptRuns, WindowsRuns])
def trials(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trials]:
    made = Trials(request.param(), tmp_path)
    yield made
    for running in made.made:
        running.abort()
        running.close()


class TestBothTwins:
    @pytest.mark.parametrize(("body", "state"), [("pass", S.SUCCESS), ("sys.exit(7)", S.FAILED)])
    def test_exit_statuses(self, trials: Trials, body: str, state: S) -> None:
        end = ended(trials.begin(body))
        assert end.state is state
        assert ("7" in end.why) == (state is S.FAILED)

    def test_a_signal_from_elsewhere_is_a_failure(self, trials: Trials) -> None:
        assert ended(trials.begin("os.kill(os.getpid(), signal.SIGKILL)")).state is S.FAILED

    def test_what_cannot_be_started_has_failed(self, trials: Trials) -> None:
        order = Order(trials.folder / "run", [str(trials.folder / "absent")], {}, trials.folder, None, 1)
        trials.made.append(trials.runs.prepare(order))
        trials.made[-1].release()
        end = ended(trials.made[-1])
        assert (end.state, "could not be started" in end.why) == (S.FAILED, True)

    @pytest.mark.parametrize("options", ["", "start_new_session=True"])
    @pytest.mark.parametrize("after", ["time.sleep(0.6)", "time.sleep(100)"])
    def test_no_descendant_is_left(self, trials: Trials, options: str, after: str) -> None:
        running = trials.begin(TREE.format(code=SLEEPS, options=options) + after)
        (pid,) = trials.said()
        aborted = after.endswith("(100)")
        if aborted:
            until(lambda: len(psutil.Process(pid).cmdline()) > 1)
            running.abort()
        assert ended(running).state is (S.ABORTED if aborted else S.SUCCESS)
        assert not lives(pid)

    @pytest.mark.parametrize("deaf", [False, True])
    def test_a_stop_ends_in_peace_or_after_the_grace(self, trials: Trials, deaf: bool) -> None:
        running = trials.begin(("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if deaf else "") + "say(1); wait()")
        trials.said()
        running.stop()
        assert ended(running).state is S.STOPPED

    def test_a_time_limit(self, trials: Trials) -> None:
        end = ended(trials.begin("wait()", run_time=0.2))
        assert (end.state, end.why) == (S.FAILED, "it ran for longer than it may")

    def test_stopped_before_it_is_released_it_does_not_run(self, trials: Trials) -> None:
        script = trials.folder / "script.py"
        script.write_text(SCRIPT.format(site=str(trials.folder)) + "say(1)")
        order = Order(trials.folder / "run", [sys.executable, str(script)], {}, trials.folder, None, 1)
        running = trials.runs.prepare(order)
        running.stop()
        running.release()
        assert ended(running).state is S.STOPPED
        running.close()
        assert not (trials.folder / "ran").exists()

    def test_closed_it_is_stopped(self, trials: Trials) -> None:
        running = trials.begin("say(os.getpid()); wait()")
        (pid,) = trials.said()
        running.close()
        until(lambda: not lives(pid))

    def test_output_without_end_is_bounded_in_memory_and_on_disk(self, trials: Trials) -> None:
        running = trials.begin("for n in range(400):\n    os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)")
        before = psutil.Process().memory_info().rss
        assert ended(running).state is S.SUCCESS
        assert psutil.Process().memory_info().rss - before < 20 << 20
        sizes = [path.stat().st_size for path in (trials.folder / "run0").iterdir() if path.is_file()]
        assert OUTPUT < sum(sizes) <= 2 * OUTPUT + 40_000

    def test_a_full_disk_takes_the_output_and_not_the_script(self, trials: Trials, small_disk: Path) -> None:
        trials.folder = small_disk
        end = ended(trials.begin("for n in range(40):\n    os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)"))
        assert end.state is S.SUCCESS

    def test_the_end_of_the_output_is_kept(self, trials: Trials) -> None:
        assert ended(trials.begin("print('the end')")).state is S.SUCCESS
        assert (trials.folder / "run0" / "stdout").read_text() == "the end\n"


class TestWindowsAlone:
    def test_a_script_whose_agent_was_killed_is_killed_and_its_end_not_known(self, tmp_path: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", SLEEPS])
        Family(process.pid).note(tmp_path)
        runs = WindowsRuns()
        assert not runs.still_runs(tmp_path)
        process.wait(LIMIT)
        assert runs.after(tmp_path) == LOST
        assert not runs.still_runs(tmp_path)

    def test_another_process_with_its_number_is_left_alone(self, tmp_path: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", SLEEPS])
        (tmp_path / "process.json").write_text(f'{{"pid": {process.pid}, "created": 1.0}}')
        assert not WindowsRuns().still_runs(tmp_path)
        assert process.poll() is None
        process.kill()
        process.wait(LIMIT)

    @pytest.mark.parametrize("command", [(S.STOPPING, S.STOPPED), (S.ABORTING, S.ABORTED)])
    def test_an_agent_that_works_by_it(self, here: Site, orchestrator: Orchestrator, command: tuple[S, S]) -> None:
        here.install("say('on'); wait()")
        job = orchestrator.add("work")
        with here.working(orchestrator.url, runs=WindowsRuns()):
            here.begun()
            orchestrator.want(command[0])
        assert job.moves == [S.IN_PROGRESS, command[1]]
