"""Libraries of versions that do not work are told before they are imported, in one line each."""

import os
import subprocess
import sys

import pytest
from harness import ROOT

from triptych import __version__, libraries
from triptych.errors import InputError

REQUIRE = f"from triptych import require; require('>={__version__},<1', 'jax'); "


@pytest.fixture
def run(tmp_path):
    """A function that runs Python with `jax` and `keras` of these versions, which can be imported, but hold
    nothing, and without any other package."""

    def run(code, **versions):
        for name, version in versions.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").touch()
            (tmp_path / f"{name}-{version}.dist-info").mkdir()
        path = f"{tmp_path}{os.pathsep}{ROOT / 'src'}"
        command = [sys.executable, "-S", "-c", REQUIRE + code]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})

    return run


@pytest.mark.parametrize(
    ("version", "bounds", "works"),
    [
        ("5.17.0", ">=5.17,<6", True),
        ("5.16.1", ">=5.17,<6", False),
        ("5.103.1.dev0", ">=5.17,<6", True),
        ("6.0.0rc1", ">=5.17,<6", False),
        ("2.13.0+cpu", ">=2.9,<3", True),
        ("0.9.0.1", ">=0.7.1,<1", True),
        ("0.7.1", ">=0.7.1,<1", True),
        ("0.7.0", ">=0.7.1,<1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version, bounds, works):
    assert libraries.within(version, bounds) == works


def test_version_is_that_of_the_installed_package():
    numpy = pytest.importorskip("numpy")
    assert libraries.installed("numpy") == numpy.__version__
    assert libraries.installed("no-such-library") is None


def test_library_outside_its_bounds_ends_a_script_with_what_works(run):
    ended = run("print('went on')", jax="0.4.30", keras="2.15.0", transformers="6.0.0")
    lowest = libraries.LIBRARIES["flax"]["jax"][0]
    assert (ended.returncode, ended.stdout) == (2, "")
    first, second = ended.stderr.splitlines()  # and none of Keras, which is of another framework
    assert first.startswith("This script works with transformers>=5.17,<6, and 6.0.0 is installed: run `pip ")
    assert second == (
        f"This script works with jax{lowest}, and 0.4.30 is installed: run `pip install 'jax{lowest}'`."
    )


def test_failure_with_a_newer_library_than_any_tried_names_it(run):
    ended = run("from jax import moved", jax="0.987.1", transformers="5.17.0")
    assert ended.returncode == 1
    *trace, last = ended.stderr.splitlines()
    assert trace[-1].startswith("ImportError: cannot import name 'moved'")
    tried = libraries.LIBRARIES["flax"]["jax"][1]
    assert last == f"Newer than what triptych was tried with: jax 0.987.1 (tried up to {tried})."


def test_failure_with_libraries_that_were_tried_is_the_ordinary_one(run):
    tried = libraries.LIBRARIES["flax"]["jax"][1]
    ended = run("from jax import moved", jax=f"{tried}.99", transformers="5.17.0")
    assert ended.stderr.splitlines()[-1].startswith("ImportError: cannot import name 'moved'")


def test_private_name_that_is_gone_is_told_with_the_versions_that_have_it():
    class Trainer:
        def _save(self):
            pass

    libraries.require_private("transformers", {Trainer: ["_save"]})
    with pytest.raises(InputError, match=r"has no Trainer\._evaluate, .*transformers 5\.17 to 5\.\d+ work"):
        libraries.require_private("transformers", {Trainer: ["_save", "_evaluate"]})
