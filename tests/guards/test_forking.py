"""A script that is forked is a process as one that is started: what the suite sees of it is the same."""

import os
import signal
import subprocess
import sys

import forking
import pytest
from harness import script_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scripts are forked on Linux only")

PROGRAM = """
import os, signal, sys, time
import helper
print(sys.argv, sys.path[0], os.getcwd(), __name__, os.environ["OF_THE_START"], os.getpgid(0))
print("complaint", file=sys.stderr)
print("triptych" in sys.modules, signal.getsignal(signal.SIGINT), file=sys.stderr)
if sys.argv[1] == "wait":
    sys.stdout.flush()
    open(f"ready-{os.getpid()}", "w").close()
    time.sleep(60)
if sys.argv[1] == "raise":
    raise RuntimeError("on purpose")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    """One that imports what there is; there is no tensor library here."""
    folder = tmp_path_factory.mktemp("zygote")
    return forking.Zygote(sys.executable, "flax", script_environment(), folder, folder)


@pytest.fixture
def program(tmp_path):
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/helper.py").write_text("")
    (tmp_path / "programs/program.py").write_text(PROGRAM)
    return tmp_path / "programs/program.py"


@pytest.fixture
def heeded():
    """SIGINT, which a shell has its background jobs, and all that they start, ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ways(heeded, zygote, program, tmp_path):
    """The program started with an interpreter of its own, and forked."""
    environment = script_environment() | {"OF_THE_START": "yes"}

    def started(word):
        command = [str(program), word]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return [
            subprocess.Popen([sys.executable, *command], cwd=tmp_path, env=environment, **pipes),
            zygote.start(command, tmp_path, environment),
        ]

    return started


@pytest.mark.parametrize("word", ["0", "2", "143"])
def test_output_arguments_and_exit_code_are_the_same(ways, word):
    plain, forked = ways(word)
    assert forked.communicate(timeout=30) == plain.communicate(timeout=30)
    assert forked.returncode == plain.returncode == int(word) == forked.poll()


def test_an_error_is_a_traceback_and_exit_code_1(ways):
    for process in ways("raise"):
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 1
        assert stdout
        assert stderr.rstrip().endswith("RuntimeError: on purpose")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_it(ways, tmp_path, number):
    for process in ways("wait"):
        while not (tmp_path / f"ready-{process.pid}").exists():
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.01)
        assert os.getpgid(process.pid) == os.getpgid(0)
        process.send_signal(number)
        assert process.wait(30) == -number
        process.kill()  # of what has ended, as for Popen, nothing


def test_other_variables_than_those_of_the_import_are_not_forked(zygote, monkeypatch):
    assert zygote.starts(script_environment())
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "another")
    assert zygote.starts(script_environment())
    assert not zygote.starts(script_environment() | {"HF_HUB_OFFLINE": "0"})
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert not zygote.starts(script_environment())
