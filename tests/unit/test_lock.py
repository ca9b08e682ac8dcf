"""Two runs in one output folder: the second is told, and what a killed one left is no obstacle."""

import os
import signal
import subprocess
import sys

import pytest

from triptych.output import lock, ownership

HOLD = """
import sys, time
from triptych.output import lock
print(lock.acquire(sys.argv[1]), flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def another(tmp_path):
    """Starts a process that takes the lock of tmp_path/out, and holds it until its input ends."""
    started = []

    def start():
        command = [sys.executable, "-c", HOLD, tmp_path / "out"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **streams))
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()
    lock.release()


def test_second_run_is_told_that_one_is_at_work(another, tmp_path):
    first, found = another()
    assert found == "[]"
    for found in (lock.problems(tmp_path / "out"), ownership.problems(str(tmp_path / "out"), True, True)):
        assert f"another run (process {first.pid} on " in found[0]
    assert another()[1].startswith("['--output_dir ")
    assert "is at work there" in lock.acquire(tmp_path / "out")[0]
    first.communicate()
    assert not (tmp_path / "out").exists()  # as nothing was written there
    assert lock.acquire(tmp_path / "out") == []
    assert "is at work" in another()[1]


def test_lock_of_a_killed_run_is_seen_through(another, tmp_path):
    first, _ = another()
    (tmp_path / "out/mine").touch()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "out" / lock.NAME).exists()
    assert lock.problems(tmp_path / "out") == []
    assert lock.acquire(tmp_path / "out") == []
    lock.release()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_own_lock_is_no_problem_and_a_child_does_not_give_it_up(another, tmp_path):
    assert lock.acquire(tmp_path / "out") == []
    assert lock.problems(tmp_path / "out") == []
    assert ownership.problems(str(tmp_path / "out"), True, False) == []
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "out" / lock.NAME).exists()
    assert "is at work" in another()[1]
    lock.release()
    assert another()[1] == "[]"
