"""Where a process may find itself: without a home, without a name."""

import os
import subprocess
import sys
from pathlib import Path

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
