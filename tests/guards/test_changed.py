"""`make test-examples CHANGED=<commit>` runs no less than what a change concerns."""

import subprocess

import changed
import manifest
import pytest
from harness import ROOT

TASKS = ("summarization", "text-classification")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["examples/flax/summarization/run_summarization.py"], {"TASK": "summarization"}),
        (["tests/tasks/summarization/golden.json", "CHANGELOG.md"], {"TASK": "summarization"}),
        (
            ["tests/tasks/text-classification/task.py", "examples/flax/summarization/README.md"],
            {"TASK": "summarization,text-classification"},
        ),
        (["src/triptych/flax/devices.py", "tests/flax/test_devices.py"], {"FRAMEWORK": "flax"}),
        (["src/triptych/flax/devices.py", "src/triptych/pytorch/devices.py"], {"FRAMEWORK": "flax,pytorch"}),
        (["README.md", "docs/parity.svg"], {"NOTHING": "yes"}),
        ([], {"NOTHING": "yes"}),
        (["src/triptych/schedule.py"], {}),
        (["examples/pytorch/xla_spawn.py"], {}),
        (["tests/fixtures/harness.py"], {}),
        (["tests/tasks/summarization/task.py", "src/triptych/flax/devices.py"], {}),
        (["tests/tasks/summarization/task.py", "conftest.py"], {}),
        (["tests/tasks/no-longer-there/manifest.toml"], {}),
    ],
)
def test_a_change_concerns_its_task_or_framework_or_everything(paths, expected):
    assert changed.concerned(paths, TASKS) == expected


def test_a_new_file_counts_as_changed_and_so_does_a_deleted_one(tree):
    for name in ("golden.json", "other.json"):
        path = tree / manifest.FOLDER / "summarization" / name
        path.unlink() if path.exists() else path.write_text("[]")
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "Change"], cwd=tree, check=True)
    found = changed.changed(tree, "HEAD~1")
    assert sorted(found) == [f"tests/tasks/summarization/{name}" for name in ("golden.json", "other.json")]
    command = ["make", "--no-print-directory", "--dry-run", "test-examples", "CHANGED=HEAD~1"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert "--task=summarization" in done.stdout, done.stderr


def test_every_framework_of_the_examples_is_known():
    assert set(changed.FRAMEWORKS) == {script.split("/")[1] for script in manifest.scripts(ROOT)}
