"""What all suites share: which forms to test, a blocked network, a time limit, and what is made only once.

    pytest tests/scripts -n 2 --framework pytorch --task summarization

The suites of `tests/scripts`, `tests/unit` and `tests/guards` run where no tensor library is; scripts run as
subprocesses with the interpreter of their framework's environment, `.venv/<framework>/bin/python` or
`$TRIPTYCH_<FRAMEWORK>_PYTHON`. An environment that is missing fails the tests that need it, unless
`--framework` leaves them out; that of PyTorch makes the checkpoints for all.

Samples and checkpoints are made when first asked for, in a folder that lasts as long as the test run, or in
`$TRIPTYCH_FIXTURES` where several test runs are to share them.
"""

import json
import os
import resource
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/fixtures")]

import forking  # noqa: E402
import harness  # noqa: E402

FRAMEWORKS = ("pytorch", "tensorflow", "flax")
SECONDS_PER_TEST = 300

# The processes of pytest-xdist inherit the first one's folder.
FIRST_PROCESS = "TRIPTYCH_TEST_RUN" not in os.environ
if FIRST_PROCESS:
    os.environ["TRIPTYCH_TEST_RUN"] = tempfile.mkdtemp(prefix="triptych-tests-")
TEST_RUN = Path(os.environ["TRIPTYCH_TEST_RUN"])
FIXTURES = Path(os.environ.setdefault("TRIPTYCH_FIXTURES", str(TEST_RUN / "fixtures")))

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": str(TEST_RUN / "huggingface"),
    "TRIPTYCH_CONNECTIONS": str(TEST_RUN / "connections"),
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",  # of tokenizers
    "CUDA_VISIBLE_DEVICES": "",  # the same numbers on every machine
}
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # importing a framework would take twice as long
runpy.run_path(str(harness.OFFLINE / "sitecustomize.py"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """A folder of 2,500 bulletins in train.jsonl, validation.jsonl, test.jsonl, each with a picture of a
    digit, and their tokenizer in tokenizer/; in tokenizer-masked/ the same with a mask token behind all
    others, in tokenizer-with-holes/ with sentinels, too."""

    def build(folder: Path) -> None:
        columns = ["--columns", "text", "summary", "topic", "entities", "translation", "choices", "choice"]
        columns += ["question", "answers"]
        harness.run_python("-m", "triptych.samples", "bulletins", folder, "--rows", "2500", *columns)
        harness.run_python(ROOT / "tests/fixtures/with_digits.py", folder)
        text = ["--files", folder / "train.jsonl", "--vocab_size", "800"]
        harness.run_python("-m", "triptych.samples", "tokenizer", folder / "tokenizer", *text)
        masked = [folder / "tokenizer-masked", *text, "--mask_token"]
        harness.run_python("-m", "triptych.samples", "tokenizer", *masked)
        further = [*text, "--extra_ids", "60", "--mask_token"]
        harness.run_python("-m", "triptych.samples", "tokenizer", folder / "tokenizer-with-holes", *further)

    return harness.once(FIXTURES / "samples", build)


@pytest.fixture(scope="session")
def tiny(samples: Path) -> Path:
    """A folder of checkpoints of random weights; see tests/fixtures/tiny_checkpoints.py."""
    script = ROOT / "tests/fixtures/tiny_checkpoints.py"
    return harness.once(
        FIXTURES / "tiny", lambda folder: harness.run_python(script, samples / "tokenizer", folder, anew=True)
    )


@pytest.fixture(scope="session")
def start(tiny: Path) -> Callable[[harness.Form], Path]:
    """The checkpoint of random weights from which most runs of a form start."""
    return lambda form: tiny / form.tests["tiny"]


@pytest.fixture(scope="session")
def trained(samples: Path) -> Callable[[harness.Form], Path]:
    """The small model of a form's task that has learnt to answer each bulletin by itself.

    The first one that is asked for takes up to 40 s on one core. Without dropout, so that runs from it can be
    compared across frameworks.
    """

    def model(form: harness.Form) -> Path:
        folder = FIXTURES / f"trained-{form.task}"
        return harness.once(folder, lambda folder: _train(form, samples, folder)) / "model"

    return model


def _train(form: harness.Form, samples: Path, folder: Path) -> None:
    own = dict(form.tests["train"])
    tokenizer = samples / own.pop("tokenizer", "tokenizer")
    of_texts = {"tokenizer_name": tokenizer, "group_by_length": True}
    words = harness.flags(
        **(of_texts if "length" in form.tests else {}),
        train_file=samples / "train.jsonl",
        test_file=samples / "test.jsonl",
        max_predict_samples=50,
        do_train=True,
        do_predict=True,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=50,
        warmup_steps=50,
        logging_steps=50,
        save_strategy="no",
        output_dir=folder / "model",
        **own,
    )
    first = next(one for one in harness.all_forms() if one.task == form.task)
    harness.run_python(first.script, *harness.with_needed(first, words))
    results = json.loads((folder / "model/predict_results.json").read_text())
    answers = harness.answers(folder / "model" / form.settings["predictions"])
    different = {row[0] for row in answers}
    assert len(different) > form.tests["different"], f"the same answers again and again: {different}"
    form.knowledge.require_learned(results, answers)


@pytest.fixture(scope="session")
def shared_run() -> Callable[..., harness.Run]:
    """A function like `run_script`, that runs what is called `name` only once for each form."""

    def run(form: harness.Form, name: str, *words: Any, **others: Any) -> harness.Run:
        def build(folder: Path) -> None:
            done = harness.run_script(form, *words, folder=folder, **others)
            (folder / "ended.json").write_text(json.dumps([done.code, done.stdout, done.stderr]))

        folder = harness.once(TEST_RUN / "runs" / name / form.task / form.name, build)
        return harness.Run(*json.loads((folder / "ended.json").read_text()), folder / "out")

    return run


@pytest.fixture(scope="session")
def files(samples: Path) -> dict[str, Path]:
    """The flags for the samples' files."""
    return {f"{split}_file": samples / f"{split}.jsonl" for split in ("train", "validation", "test")}


@pytest.fixture(scope="session")
def standard_words(
    trained: Callable[[harness.Form], Path], files: dict[str, Path]
) -> Callable[..., list[str]]:
    """The command line of the run that most tests look at, with changes: everything once, from the trained
    model; warm-up, decay, clipping, accumulation over a partial last batch."""

    def words(form: harness.Form, **changes: Any) -> list[str]:
        values = {
            "model_name_or_path": trained(form),
            **files,
            "do_train": True,
            "do_eval": True,
            "do_predict": True,
            "max_train_samples": 44,
            "max_eval_samples": 20,
            "max_predict_samples": 40,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "max_steps": harness.STEPS,
            "learning_rate": form.tests["rate"],
            "warmup_steps": 5,
            "weight_decay": 0.01,
            "max_grad_norm": 1.0,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 10,
            "save_steps": 10,
            "save_total_limit": 3,
            "report_to": "tensorboard",
            "hub_token": harness.SECRET,
            "seed": 1,
        }
        return [*harness.flags(**values | changes), *form.settings["flags"]]

    return words


@pytest.fixture(scope="session")
def standard(
    shared_run: Callable[..., harness.Run], standard_words: Callable[..., list[str]]
) -> Callable[..., harness.Run]:
    """The run that most tests look at, its batches recorded in `batches.jsonl`; with a seed of its own."""

    def run(form: harness.Form, seed: int = 1) -> harness.Run:
        return shared_run(form, f"standard-{seed}", *standard_words(form, seed=seed), record="batches.jsonl")

    return run


@pytest.fixture(scope="session")
def forms(pytestconfig: pytest.Config) -> list[harness.Form]:
    """The selected scripts."""
    return selected_forms(pytestconfig)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triptych")
    group.addoption(
        "--framework", default="", metavar="NAMES", help="test only these frameworks' scripts: pytorch,flax"
    )
    group.addoption(
        "--task", default="", metavar="NAMES", help="test only these tasks' scripts: summarization"
    )
    group.addoption("--all", action="store_true", help="every test for every task: what make test-all runs")
    group.addoption("--figures", metavar="FILE", help="add what tests/parity measured to this JSONL file")
    group.addoption(
        "--renew-golden", action="store_true", help="write the golden curves instead of comparing"
    )


def selected_forms(config: pytest.Config) -> list[harness.Form]:
    forms = harness.all_forms()
    for option, known in (("framework", FRAMEWORKS), ("task", dict.fromkeys(form.task for form in forms))):
        names = list(filter(None, config.getoption(option).split(",")))
        if unknown := set(names) - set(known):
            raise pytest.UsageError(f"--{option} {','.join(unknown)}: there are {', '.join(known)}")
        forms = [form for form in forms if not names or getattr(form, option) in names]
    return forms


MARKS = {
    "first_task": "of what all tasks share: for the first task alone",
    "crossed": "of what is the same text in all forms of a task, or of all tasks' loop: for the first task's "
    "forms and each task's first form, with --all for each",
    "sampled": "of the package, or the loop of all tasks: for the first task, with --all for each",
    "first_with(what)": "for the first task whose manifest says `tests.<what>`, with --all for each such",
    "needs(what)": "for each task whose manifest says `tests.<what>`",
    "neutral": "of neutral modules: for the forms of the first framework, with --all for every form",
    "nightly": "only with --all",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `form` runs for every selected script; one that takes `other_form` for all but each
    task's first, with which it is compared, as `first_form`."""
    forms = selected_forms(metafunc.config)
    if "form" in metafunc.fixturenames:
        metafunc.parametrize("form", forms, ids=str, scope="session")
    if "other_form" in metafunc.fixturenames:
        firsts = {form.task: form for form in reversed(harness.all_forms())}
        pairs = [(firsts[form.task], form) for form in forms if form != firsts[form.task]]
        ids = [str(other) for _, other in pairs]
        metafunc.parametrize(("first_form", "other_form"), pairs, ids=ids, scope="session")


def pytest_configure(config: pytest.Config) -> None:
    for name, about in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {about}")
    if not config.pluginmanager.hasplugin("xdist"):
        config.addinivalue_line("markers", "xdist_group(name): done by one worker")


# These look at the same runs.
OF_THE_STANDARD_RUN = ("test_standard_run", "test_parity", "test_older_spellings", "test_batches")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is for other tasks or another time, see MARKS, and has tests that look at the same runs
    done by one worker: else one would wait for the other."""
    left_out = [item for item in items if not is_wanted(item, config)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS_PER_TEST))
        if form := form_of(item):
            suite = "standard" if item.path.stem in OF_THE_STANDARD_RUN else item.path.stem
            item.add_marker(pytest.mark.xdist_group(f"{suite}, {form}"))
            item.user_properties.append(("form", str(form)))
        item.user_properties.append(("suite", item.path.relative_to(ROOT).parent.as_posix()))
    items.sort(key=place)


def is_wanted(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test's marks say that it is run for its form, and now."""
    form, everything = form_of(item), config.getoption("all")
    wanted = everything or not item.get_closest_marker("nightly")
    if form is None:
        return wanted
    if item.get_closest_marker("neutral") and not everything:
        wanted &= form.framework == selected_forms(config)[0].framework
    if item.get_closest_marker("crossed") and not everything:
        wanted &= form.is_of_first_task or form.is_first_of_its_task
    if item.get_closest_marker("first_task") or (item.get_closest_marker("sampled") and not everything):
        wanted &= form.is_of_first_task
    for mark in (*item.iter_markers("needs"), *item.iter_markers("first_with")):
        able = [task for task, about in harness.all_tasks().items() if about["tests"].get(mark.args[0])]
        first_only = mark.name == "first_with" and not everything
        wanted &= form.task in (able[:1] if first_only else able)
    return wanted


def form_of(item: pytest.Item) -> harness.Form | None:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    form = parameters.get("form") or parameters.get("other_form")
    return form if isinstance(form, harness.Form) else None  # none was selected


def place(item: pytest.Item) -> int:
    """What takes longest comes first, so that no worker is left with it at the end."""
    order = ("suites", "tensorflow", "flax", "pytorch")
    form = form_of(item)
    name = form.framework if form else item.path.parent.name
    return order.index(name) if name in order else len(order)


seconds: dict[str, dict[str, float]] = {"form": {}, "suite": {}}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for kind, name in report.user_properties:
        if kind in seconds:
            seconds[kind][name] = seconds[kind].get(name, 0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Notes how long this process computed, with those that it started."""
    if FIRST_PROCESS or hasattr(session.config, "workerinput"):
        # The workers of pytest-xdist, which are children of the first process, note their own.
        distributed = FIRST_PROCESS and session.config.getoption("numprocesses", None)
        whose = (resource.RUSAGE_SELF, *([] if distributed else [resource.RUSAGE_CHILDREN]))
        used = list(map(resource.getrusage, whose))
        own = sum(one.ru_utime + one.ru_stime for one in used) + forking.seconds_computed()
        with (TEST_RUN / "computed").open("a") as file:
            file.write(f"{own}\n")


def write_seconds(terminalreporter: Any) -> None:
    """How long each form and each suite took, all workers together: so that growth is seen, and how much of
    it was computing, which does not depend on what else a machine does."""
    computed = sum(map(float, (TEST_RUN / "computed").read_text().split()))
    terminalreporter.write_line(f"computed for {computed:.0f} s, all processes together")
    for kind, found in seconds.items():
        if found and max(found.values()) > 10:
            terminalreporter.section(f"seconds by {kind}, of all workers together")
            for name, taken in sorted(found.items()):
                terminalreporter.write_line(f"{taken:8.0f}  {name}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How long everything took, how many scripts ran, and what none of them touched."""
    if FIRST_PROCESS:
        write_seconds(terminalreporter)
    if not FIRST_PROCESS or not (TEST_RUN / "runs.jsonl").exists():
        return
    runs = [json.loads(line) for line in (TEST_RUN / "runs.jsonl").read_text().splitlines()]
    complete = [run for run in runs if run["code"] == 0]
    scripts: dict[str, int] = {}
    for run in complete:
        name = f"{run['task']}/{run['form']}"
        scripts[name] = scripts.get(name, 0) + 1
    touched = {
        "GPU": any(run["device"] in ("cuda", "gpu", "GPU") for run in complete),
        "TPU": any(run["device"] in ("xla", "tpu", "TPU") for run in complete),
        "several processes": any(run["processes"] > 1 for run in complete),
        "hub": any(run["pushed"] for run in complete),
    }
    missing = [str(form) for form in harness.all_forms() if str(form) not in scripts]
    missing += [name for name, was_touched in touched.items() if not was_touched]
    write = terminalreporter.write_line
    terminalreporter.section("scripts exercised")
    tasks, forms = {run["task"] for run in complete}, {run["form"] for run in complete}
    write(
        f"{len(scripts)} scripts ({len(tasks)} tasks x {len(forms)} forms): {len(complete)} complete runs, "
        f"{len(runs) - len(complete)} that had to be refused or stopped"
    )
    for name, count in sorted(scripts.items()):
        forked = [
            run["computed"] for run in runs if f"{run['task']}/{run['form']}" == name if run["computed"]
        ]
        computed = f", {len(forked)} forked ones computed {sum(forked):.0f} s" if forked else ""
        write(f"  {name}: {count} complete runs{computed}")
    write(f"not exercised: {', '.join(missing) or 'nothing'}")


def pytest_unconfigure(config: pytest.Config) -> None:
    if FIRST_PROCESS:
        shutil.rmtree(TEST_RUN, ignore_errors=True)
