"""The suites that run inside a framework, each in its own environment."""

import subprocess

import pytest
from harness import ROOT, interpreter

FRAMEWORKS = [
    path.name for path in (ROOT / "examples").iterdir() if any((ROOT / "tests" / path.name).glob("test_*.py"))
]


# One after the other: side by side each would wait for models that another of them is training.
@pytest.mark.xdist_group("inside the frameworks")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_suite_inside_the_framework(framework, pytestconfig):
    chosen = [name for name in pytestconfig.getoption("framework").split(",") if name]
    if framework not in (chosen or FRAMEWORKS):
        pytest.skip("another framework was asked for")
    if pytestconfig.getoption("task"):
        pytest.skip("not of a task")
    command = [interpreter(framework), "-m", "pytest", "-q", ROOT / "tests" / framework]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
