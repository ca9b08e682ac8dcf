"""Where a process may find itself: without a home, without a name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = """
import getpass, os, pwd, sys, tempfile
def unknown(number): raise KeyError(number)
pwd.getpwuid = unknown
tempfile.tempdir = sys.argv[1]
import triptych
triptych.require(">=0.2,<0.3")
print(os.path.expanduser("~"))
print(getpass.getuser())
"""


def find(folder, **variables):
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, folder], env=given, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_container_that_runs_under_a_number_has_a_home_and_a_name(tmp_path):
    home, name = find(tmp_path)
    assert home == str(tmp_path / f"home-of-{name}")
    assert Path(home).stat().st_mode & 0o777 == 0o700
    assert find(tmp_path) == [home, name]
    assert find(tmp_path, HOME="/there", USER="somebody") == ["/there", "somebody"]


TALK = """
import logging, sys
from triptych.run import outlets
outlets.open_all()
logging.basicConfig(level=logging.INFO)
for number in range(20_000):
    sys.stdout.write(f"{number} d\\u00e9j\\u00e0 vu\\n")  # which has to be escaped
    logging.info("step %d", number)
sys.stdout.flush()
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_run_goes_on_when_nobody_reads_what_it_says(options, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, *options, "-c", TALK, tmp_path / "end"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": environment}
    with subprocess.Popen(command, **streams) as process:
        first = b"".join(process.stdout.readline() for _ in range(2))
        process.stdout.close()
        assert process.wait() == 0
    assert rb"0 d\xe9j\xe0 vu" in first or b"INFO" in first
    assert (tmp_path / "end").read_text() == "done"
