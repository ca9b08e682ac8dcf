"""All forms of a task take the same flags: names, types, defaults, choices and help.

Each script tells its flags itself, in the environment of its framework. The Trainer form has others besides.
What must differ in every task stands here with its reason, what differs in one in its manifest:
`differences.<form>.<flag> = "..."`.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import manifest
import pytest
from harness import SECONDS_PER_RUN, interpreter

ROOT = Path(__file__).resolve().parents[2]
TASKS = manifest.tasks(ROOT)
FLAGS_AT_LEAST = 93  # of each form
DIFFERENCES = {
    "pytorch-trainer": {
        "fsdp": "transformers' own, which takes a configuration, is refused",
        "tpu": "a TPU is found by torch_xla or torch_tpu; see xla_spawn.py",
    },
    "pytorch-accelerate": {"tpu": "likewise"},
    "tensorflow": {"fsdp": "tf.distribute mirrors a model, it does not split one"},
    "flax": {"tpu": "jax finds a TPU by itself"},
}

PRINT_FLAGS = """
import dataclasses, json, runpy, sys, typing
from triptych import command_line

def print_flags(*classes, **ignored):
    flags = {}
    for cls in classes:
        kinds = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            default = None if field.default is dataclasses.MISSING else field.default
            kind, about = str(kinds[field.name]), field.metadata
            flags[field.name] = [kind, repr(default), str(about.get("choices")), about.get("help")]
    print("\\n" + json.dumps(flags))
    sys.exit(0)

command_line.parse = print_flags
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@cache
def flags(root: Path, form: str, script: str) -> dict[str, list]:
    """Type, default, choices and help by flag."""
    done = subprocess.run(
        [interpreter(form.partition("-")[0]), "-c", PRINT_FLAGS, root / script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        timeout=SECONDS_PER_RUN,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def compare(taken: dict[str, dict], differences: dict[str, dict]) -> tuple[int, list[str]]:
    """How many flags were compared, and where the forms differ without a reason.

    Args:
        taken: the flags by form.
        differences: reasons by form and flag.
    """
    loops = [found for form, found in taken.items() if form != "pytorch-trainer"]
    expected = {name: about for found in loops for name, about in found.items()}
    number, problems = 0, []
    for form, found in taken.items():
        number += len(expected)
        different = {name for name in expected if found.get(name) != expected[name]}
        known = differences.get(form, {}).keys()
        problems += [
            f"{form} --{name}: {found.get(name)}, elsewhere {expected[name]}" for name in different - known
        ]
        problems += [f"{form} --{name}: is listed as different, and is not" for name in known - different]
    return number, problems


@pytest.mark.parametrize("name", TASKS)
def test_all_forms_take_the_same_flags(name, compared):
    taken = {form: flags(ROOT, form, script) for form, script in TASKS[name]["scripts"].items()}
    own = TASKS[name].get("differences", {})
    number, problems = compare(taken, {form: DIFFERENCES[form] | own.get(form, {}) for form in taken})
    assert not problems, "\n".join(problems)
    compared(number, at_least=FLAGS_AT_LEAST * len(taken))


def test_a_difference_needs_a_reason_and_a_reason_a_difference(tree):
    forms = ("pytorch-trainer", "pytorch-accelerate")
    trainer, loop = (TASKS["summarization"]["scripts"][form] for form in forms)
    text = (tree / loop).read_text()
    for old, new in (
        ("text_column: str | None = flag(None", 'text_column: str | None = flag("text"'),
        ("summary_column: str | None", "summary_column: int | None"),
        ("    lang:", "    language:"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tree / loop).write_text(text)
    changed = dict(zip(forms, (flags(ROOT, forms[0], trainer), flags(tree, forms[1], loop)), strict=True))
    always = {"pytorch-trainer": {"fsdp": "a flag of another kind"}}
    problems = compare(changed, always)[1]
    assert sorted(problem.split()[1] for problem in problems) == [
        "--language:",
        "--summary_column:",
        "--text_column:",
    ]

    reasons = dict.fromkeys(("text_column", "summary_column", "language", "fsdp"), "on purpose")
    assert compare(changed, {"pytorch-trainer": reasons})[1] == []
    same = {form: changed["pytorch-accelerate"] for form in forms}
    assert len(compare(same, {"pytorch-trainer": reasons})[1]) == 4
