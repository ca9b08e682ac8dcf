"""What a reader of the repository relies on without checking it, and proof that each guard can fail.

A guard takes the repository's folder and returns how many things it compared, and what is wrong.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import fix_copies
import frozen
import manifest
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = {
    "pytorch": {"torch", "torchvision", "accelerate"},
    "tensorflow": {"tensorflow", "tensorflow_text", "keras", "keras_hub"},
    "flax": {"jax", "jaxlib", "flax", "optax"},
}
SLOW_TO_IMPORT = {"transformers", "datasets", "evaluate", "pyarrow", "matplotlib", "pandas"}
BANNERS = [
    "Arguments",
    "Data",
    "Model",
    "Inputs",
    "Batches",
    "Steps",
    "Train",
    "Evaluate",
    "Predict",
    "Share",
]
MOST_LINES = {"pytorch-trainer": 215, "pytorch-accelerate": 256, "tensorflow": 272, "flax": 290}
# Of the package, that a script uses: what a newcomer has to look up
MOST_NAMES = {"pytorch-trainer": 50, "pytorch-accelerate": 70, "tensorflow": 72, "flax": 74}

Found = tuple[int, list[str]]


def names_of_scripts(root: Path) -> dict[str, str]:
    """By the path of a second name, the script in the same folder that it stands for."""
    return {
        str(Path(path).with_name(name)): script
        for task in manifest.tasks(root).values()
        for path in task["scripts"].values()
        for name, script in task.get("names", {}).items()
        if Path(path).name == script
    }


def files(root: Path) -> list[Path]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    return [root / name for name in names if (root / name).is_file()]


def manifests_are_what_is_on_disk(root: Path) -> Found:
    named, other_names = manifest.scripts(root), names_of_scripts(root)
    on_disk = {str(path.relative_to(root)) for path in root.glob("examples/**/run_*.py")}
    problems = [f"{path} is in no manifest" for path in on_disk - named.keys() - other_names.keys()]
    problems += [
        f"{path}, named in a manifest, does not exist"
        for path in (named.keys() | other_names.keys()) - on_disk
    ]
    for path in other_names.keys() & on_disk:
        code = ast.unparse(ast.parse((root / path).read_text())).partition('"""\n')[2].split('"""\n')[-1]
        runs = f"runpy.run_path(str(Path(__file__).with_name({other_names[path]!r})), run_name='__main__')"
        if code.split("\n") != ["import runpy", "from pathlib import Path", runs]:
            problems.append(f"{path} does more than run {other_names[path]}")
    problems += [
        f"{path} is not in the folder of the framework of its form, {form}"
        for path, form in named.items()
        if not path.startswith(f"examples/{form.partition('-')[0]}/")
    ]
    needed = {Path(path).with_name(name) for path in named for name in ("README.md", "requirements.txt")}
    of_task = ("manifest.toml", "task.py", "golden.json", "schema.json")
    folders = [path for path in (root / manifest.FOLDER).iterdir() if any(path.glob("[!_]*"))]
    needed |= {manifest.FOLDER / folder.name / name for folder in folders for name in of_task}
    problems += [f"{path} does not exist" for path in needed if not (root / path).is_file()]
    return len(on_disk | named.keys() | needed), problems


def shared_parts_are_identical(root: Path) -> Found:
    number, problems = 0, []
    for source, script, across, own, called in fix_copies.copies(root):
        text = script.read_text()
        number += len(fix_copies.parts(text, across))
        try:
            if fix_copies.with_copies(source.read_text(), text, across, own, called) != text:
                problems.append(f"{script} differs from {source}: `make fix-copies`")
        except ValueError as error:
            problems.append(f"{script} {error}")
    return number, problems


def banners_are_in_order(root: Path) -> Found:
    number, problems = 0, []
    for path, form in manifest.scripts(root).items():
        expected = [banner for banner in BANNERS if not (banner == "Steps" and form == fix_copies.SOURCE)]
        found = [line for line in (root / path).read_text().splitlines() if re.match(r" *# -{5,}", line)]
        number += len(found)
        same = {name: f"{name} (the same in every task)" for name in fix_copies.SECTIONS}
        titles = [same.get(banner, banner) for banner in expected]
        if found != [f"    # {'-' * (103 - len(title))} {title}" for title in titles]:
            problems.append(f"{path}: banners should be {expected}, 110 columns wide")
    return number, problems


def table_of_tasks_is_that_of_the_manifests(root: Path) -> Found:
    readme = (root / "README.md").read_text()
    try:
        same = manifest.with_table(readme, root) == readme
    except ValueError as error:
        return 0, [str(error)]
    return len(manifest.tasks(root)), [] if same else ["README.md shows other tasks: `make fix-copies`"]


def headers_name_the_requirements(root: Path) -> Found:
    headed = list(fix_copies.headed(root))
    return len(headed), [
        f"{path.relative_to(root)}: its header is not its requirements.txt: `make fix-copies`"
        for path, text in headed
        if path.read_text() != text
    ]


def scripts_are_short(root: Path) -> Found:
    """Beside the header, which is made."""
    texts = {path: (root / path).read_text() for path in manifest.scripts(root)}
    lengths = {path: len(fix_copies.HEADER.sub("", text).splitlines()) for path, text in texts.items()}
    return len(lengths), [
        f"{path} has {n} lines, over {MOST_LINES[form]}"
        for path, form in manifest.scripts(root).items()
        if (n := lengths[path]) > MOST_LINES[form]
    ]


def scripts_use_few_names(root: Path) -> Found:
    """What a newcomer has to look up: functions and classes of the package, and methods of its objects."""
    found = {path: names_of_package((root / path).read_text()) for path in manifest.scripts(root)}
    return sum(map(len, found.values())), [
        f"{path} uses {len(found[path])} names of the package, over {MOST_NAMES[form]}"
        for path, form in manifest.scripts(root).items()
        if len(found[path]) > MOST_NAMES[form]
    ]


def names_of_package(script: str) -> set[str]:
    tree = ast.parse(script)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("triptych")
        for alias in node.names
    }
    objects = imported | {
        "world",
        "training",
        "evaluation",
        "labels",
        "trainer",
        "shapes",
        "loss_scale",
        "bar",
    }
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    named = {(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name)}
    used = {f"{owner}.{name}" for owner, name in named if owner in objects}
    return used | (imported - {name.partition(".")[0] for name in used})


# Imports each module with the heavy libraries forbidden, and prints what they tried.
IMPORT = """
import importlib, json, sys
forbidden, modules = json.loads(sys.argv[1])
tried = []

class Forbid:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            tried.append(name)
            raise ImportError(name)

sys.meta_path.insert(0, Forbid)
problems = {}
for module in modules:
    tried.clear()
    try:
        importlib.import_module(module)
    except ImportError as error:
        tried.append(str(error))
    if tried:
        problems[module] = sorted(set(tried))
print(json.dumps(problems))
"""


def neutral_modules_import_nothing_heavy(root: Path) -> Found:
    source = root / "src"
    modules = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        # A metric's own module is a class of `evaluate`, imported when the metric is loaded.
        is_metric = parts[1] == "metrics" and parts[-1] != "__init__"
        if parts[1] not in LIBRARIES and parts[-1] != "__main__" and not is_metric:
            modules.append(".".join(parts).removesuffix(".__init__"))
    forbidden = sorted(set.union(SLOW_TO_IMPORT, *LIBRARIES.values()))
    command = [sys.executable, "-c", IMPORT, json.dumps([forbidden, modules])]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(source)}
    )
    assert done.returncode == 0, done.stderr
    return len(modules), [f"{module} imports {names}" for module, names in json.loads(done.stdout).items()]


def imported(path: Path) -> set[str]:
    """Full names of everything that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
    return names


def frameworks_do_not_import_one_another(root: Path) -> Found:
    number, problems = 0, []
    paths = [*root.glob("src/triptych/*/**/*.py"), *root.glob("examples/*/**/*.py")]
    for path in paths:
        framework = path.relative_to(root).parts[1 if path.is_relative_to(root / "examples") else 2]
        if framework not in LIBRARIES:
            continue
        number += 1
        others = set.union(*(names for name, names in LIBRARIES.items() if name != framework))
        for name in imported(path):
            first, _, rest = name.partition(".")
            inside = rest.partition(".")[0] if first == "triptych" else framework
            if first in others or first == "" or inside in LIBRARIES.keys() - {framework}:
                problems.append(f"{path.relative_to(root)} imports {name}")
    return number, problems


def requirements_are_bounded(root: Path) -> Found:
    pyproject = tomllib.loads((root / "pyproject.toml").read_text())
    project = pyproject["project"]
    stated = {"pyproject.toml": sum(project["optional-dependencies"].values(), project["dependencies"])}
    stated["pyproject.toml, build-system"] = pyproject["build-system"]["requires"]
    for path in root.glob("examples/**/requirements*.txt"):
        stated[str(path.relative_to(root))] = re.findall(r"^(?!#|\.\./)\S.*$", path.read_text(), re.MULTILINE)
    number, problems, known = 0, [], {}
    for where, requirements in stated.items():
        for requirement in map(Requirement, requirements):
            number += 1
            bounds = {specifier.operator for specifier in requirement.specifier}
            if not ({">="} <= bounds and bounds & {"<", "<="}):
                problems.append(f"{where}: {requirement} needs a lower bound with >= and an upper one")
            if known.setdefault(requirement.name, requirement.specifier) != requirement.specifier:
                problems.append(
                    f"{where}: {requirement} has other bounds elsewhere, {known[requirement.name]}"
                )
    return number, problems


def files_are_text(root: Path) -> Found:
    def is_text(path: Path) -> bool:
        try:
            return "\0" not in path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return False

    def is_fixture(path: Path) -> bool:
        """What other libraries wrote, in formats of their own, and rows of frozen projects; small."""
        is_there = path.is_relative_to(root / "tests/fixtures/old") or (
            path.suffix == ".gz" and path.parent.name == "data" and path.parents[2].name in frozen.KINDS
        )
        return is_there and path.stat().st_size < 300_000

    paths = files(root)
    binary = [path for path in paths if not is_text(path) and not is_fixture(path)]
    return len(paths), [f"{path.relative_to(root)} is binary" for path in binary]


def files_name_no_machine(root: Path) -> Found:
    # A path that exists on one person's machine, but neither an address nor part of a longer path.
    pattern = re.compile(r"(?<![\w.:/~})-])/(?:home|root|Users|work|opt|mnt|srv)/\w+")
    paths = files(root)
    return len(paths), [
        f"{path.relative_to(root)}: {match[0]}"
        for path in paths
        for match in pattern.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]


def frozen_projects_are_whole(root: Path) -> Found:
    """Six files and no more than their own; alone; in the table."""
    number, problems = 0, []
    for kind in filter(lambda kind: (root / kind).exists(), frozen.KINDS):
        readme = root / kind / "README.md"
        if f'"{kind}/**"' not in (root / ".github/dependabot.yml").read_text():
            problems.append(f".github/dependabot.yml does not leave out {kind}")
        folders = [path for path in (root / kind).iterdir() if path.is_dir() and frozen.files(path)]
        problems += [] if folders else [f"{kind} holds no project"]
        try:
            if (
                not readme.is_file()
                or frozen.with_table(readme.read_text(), root, kind) != readme.read_text()
            ):
                problems.append(f"{kind}/README.md shows other records: `python3 tools/frozen.py table`")
        except ValueError as error:
            problems.append(str(error))
        for folder in folders:
            name, paths = folder.relative_to(root), frozen.files(folder)
            needed = ("README.md", frozen.TEST, frozen.PINS, frozen.LOCK, frozen.RECORD)
            problems += [f"{name}/{file} does not exist" for file in needed if not (folder / file).is_file()]
            problems += [] if list(folder.glob("run_*.py")) else [f"{name} has no run_*.py"]
            for path in paths:
                number += 1
                if path.stat().st_size > 300_000:
                    problems.append(f"{path.relative_to(root)} is over 300 kB")
                if path.suffix == ".py" and any(one.split(".")[0] == "triptych" for one in imported(path)):
                    problems.append(f"{path.relative_to(root)} imports triptych")
    return number, problems


def frozen_pins_are_exact(root: Path) -> Found:
    number, problems = 0, []
    for folder in frozen.projects(root):
        name, (head, *lines) = folder.relative_to(root), (folder / frozen.PINS).read_text().splitlines()
        if head != f"-c {frozen.LOCK}" or lines[:1] != ["--only-binary :all:"]:
            problems.append(f"{name}: {frozen.PINS} begins with -c {frozen.LOCK} and --only-binary :all:")
        locked = re.findall(r"^([\w.-]+==\S+)", (folder / frozen.LOCK).read_text(), re.MULTILINE)
        for line in (line for line in lines[1:] if not line.startswith("#")):
            number += 1
            if line not in locked:
                problems.append(f"{name}: {line} is no exact pin of {frozen.LOCK}")
    return number, problems


def frozen_records_are_of_the_files(root: Path) -> Found:
    """Nobody edits a project without running it."""
    folders = frozen.projects(root)
    return len(folders), [
        f"{folder.name} has changed since its record: `make test-frozen PROJECT={folder.name} RENEW=1`"
        for folder in folders
        if frozen.record(folder).get("files") != frozen.hash_of_project(folder)
        or frozen.record(folder).get("pins") != frozen.pins(folder)
    ]


# Each guard with the least that it compares: a number, and one for each script of the manifests.
GUARDS = {
    manifests_are_what_is_on_disk: (0, 3),
    shared_parts_are_identical: (0, 3),
    banners_are_in_order: (0, 9),
    table_of_tasks_is_that_of_the_manifests: (1, 0),
    headers_name_the_requirements: (8, 1),
    scripts_are_short: (0, 1),
    scripts_use_few_names: (0, 20),
    neutral_modules_import_nothing_heavy: (27, 0),
    frameworks_do_not_import_one_another: (37, 1),
    requirements_are_bounded: (38, 0),
    frozen_projects_are_whole: (45, 0),
    frozen_pins_are_exact: (24, 0),
    frozen_records_are_of_the_files: (5, 0),
    files_are_text: (140, 2),
    files_name_no_machine: (140, 2),
}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_guard(guard, compared):
    number, problems = guard(ROOT)
    assert not problems, "\n".join(problems)
    least, for_each_script = GUARDS[guard]
    compared(number, at_least=least + for_each_script * len(manifest.scripts(ROOT)))


TRAINER = "examples/pytorch/summarization/run_summarization.py"
GLUE = "examples/flax/text-classification/run_glue.py"
LOOP = "examples/pytorch/summarization/run_summarization_no_trainer.py"
FROZEN = "research_projects/code-deduplication"
CLASSIFIER = "examples/pytorch/text-classification/run_classification_no_trainer.py"


def replacing(path: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


def adding(path: str, content: str | bytes):
    def change(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with open(root / path, "ab") as file:
            file.write(content if isinstance(content, bytes) else content.encode())

    return change


@pytest.mark.parametrize(
    ("guard", "change", "words"),
    [
        (
            manifests_are_what_is_on_disk,
            adding("examples/pytorch/summarization/run_other.py", ""),
            "in no manifest",
        ),
        (manifests_are_what_is_on_disk, lambda root: (root / LOOP).unlink(), "does not exist"),
        (manifests_are_what_is_on_disk, lambda root: (root / GLUE).unlink(), "does not exist"),
        (
            manifests_are_what_is_on_disk,
            replacing(GLUE, 'with_name("run_', 'with_name("other_'),
            "more than run",
        ),
        (
            manifests_are_what_is_on_disk,
            lambda root: (root / LOOP).with_name("requirements.txt").unlink(),
            "not exist",
        ),
        (
            manifests_are_what_is_on_disk,
            replacing("tests/tasks/summarization/manifest.toml", "pytorch-acc", "flax-acc"),
            "folder of the",
        ),
        (
            manifests_are_what_is_on_disk,
            lambda root: (root / "tests/tasks/summarization/golden.json").unlink(),
            "golden.json does not exist",
        ),
        (
            table_of_tasks_is_that_of_the_manifests,
            replacing("tests/tasks/summarization/manifest.toml", '"ROUGE"', '"BLEU"'),
            "make fix-copies",
        ),
        (table_of_tasks_is_that_of_the_manifests, replacing("README.md", manifest.END, ""), "needs a line"),
        (
            shared_parts_are_identical,
            replacing(LOOP, "column of the texts (", "the column of the texts ("),
            "make fix-copies",
        ),
        (shared_parts_are_identical, replacing(LOOP, "def score(", "def scores("), "lacks ['score']"),
        (
            shared_parts_are_identical,
            replacing(CLASSIFIER, "if training.saves(is_best):", "if is_best or training.saves(is_best):"),
            "make fix-copies",
        ),
        (
            shared_parts_are_identical,
            replacing(CLASSIFIER, "optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=False)"),
            "make fix-copies",
        ),
        (
            shared_parts_are_identical,
            adding("tests/tasks/summarization/manifest.toml", '\n[own]\n"flax.update" = "a reason"\n'),
            "which it has not: a reason",
        ),
        (banners_are_in_order, replacing(LOOP, "- Train (", "- Training ("), "banners"),
        (banners_are_in_order, replacing(TRAINER, "- Inputs\n", "- Steps\n"), "banners"),
        (
            headers_name_the_requirements,
            replacing(
                "examples/flax/summarization/requirements.txt", "rouge-score>=0.1.2", "rouge-score>=0.1.1"
            ),
            "flax/summarization/run_summarization.py: its header",
        ),
        (
            headers_name_the_requirements,
            replacing(GLUE, "# /// script", "# /// text"),
            "run_glue.py: its header",
        ),
        (scripts_are_short, adding(LOOP, "\n" * 100), "lines"),
        (
            scripts_use_few_names,
            adding(LOOP, "\n".join(f"world.method_{number}()" for number in range(50))),
            "names of the package",
        ),
        (
            neutral_modules_import_nothing_heavy,
            adding("src/triptych/data/columns.py", "import torch\n"),
            "columns imports",
        ),
        (
            neutral_modules_import_nothing_heavy,
            adding("src/triptych/errors.py", "try:\n    import datasets\nexcept ImportError:\n    pass\n"),
            "imports ['datasets']",
        ),
        (
            frameworks_do_not_import_one_another,
            adding("src/triptych/flax/new.py", "from triptych.pytorch import models\n"),
            "new.py imports triptych.pytorch.models",
        ),
        (
            frameworks_do_not_import_one_another,
            adding("src/triptych/tensorflow/new.py", "def convert():\n    import torch\n"),
            "new.py imports torch",
        ),
        (
            requirements_are_bounded,
            adding("examples/pytorch/summarization/requirements.txt", "nltk>=3.9\n"),
            "upper",
        ),
        (requirements_are_bounded, replacing("pyproject.toml", "torch>=2.9,<", "torch<"), "lower bound"),
        (
            requirements_are_bounded,
            adding("examples/pytorch/summarization/requirements.txt", "numpy>=1.26,<3\n"),
            "other bounds elsewhere",
        ),
        (
            frozen_projects_are_whole,
            lambda root: (root / FROZEN / "lock.txt").unlink(),
            "lock.txt does not exist",
        ),
        (
            frozen_projects_are_whole,
            lambda root: [shutil.rmtree(one) for one in (root / "legacy").iterdir() if one.is_dir()],
            "legacy holds no project",
        ),
        (
            frozen_projects_are_whole,
            replacing(".github/dependabot.yml", '"research_projects/**"', ""),
            "does not leave out research_projects",
        ),
        (frozen_projects_are_whole, adding(f"{FROZEN}/rows.csv", "1,2\n" * 100_000), "over 300 kB"),
        (
            frozen_projects_are_whole,
            adding(f"{FROZEN}/test_claim.py", "\ndef more():\n    from triptych.data import columns\n"),
            "test_claim.py imports triptych",
        ),
        (
            frozen_projects_are_whole,
            replacing(f"{FROZEN}/last_known_good.json", '"memory_in_mb": ', '"memory_in_mb": 1'),
            "shows other records",
        ),
        (
            frozen_projects_are_whole,
            adding("legacy/other/run_other.py", ""),
            "legacy/other/README.md does not",
        ),
        (
            frozen_pins_are_exact,
            replacing(f"{FROZEN}/requirements.txt", "numpy==", "numpy>="),
            "no exact pin",
        ),
        (frozen_pins_are_exact, replacing(f"{FROZEN}/lock.txt", "numpy==2", "numpy==1"), "no exact pin"),
        (frozen_pins_are_exact, replacing(f"{FROZEN}/requirements.txt", "-c lock.txt\n", ""), "begins with"),
        (frozen_records_are_of_the_files, adding(f"{FROZEN}/README.md", "And more.\n"), "has changed since"),
        (frozen_records_are_of_the_files, adding(f"{FROZEN}/new.py", ""), "has changed since its record"),
        (files_are_text, adding("tests/fixtures/model.bin", b"\x80\x81\0"), "model.bin is binary"),
        (
            files_name_no_machine,
            adding("src/triptych/errors.py", "# see /" + "home/me/notes\n"),
            "errors.py: /home",
        ),
    ],
)
def test_guard_turns_red(guard, change, words, tree):
    before = guard(tree)[1]
    change(tree)
    problems = set(guard(tree)[1]) - set(before)
    assert any(words in problem for problem in problems), problems


def test_fix_copies_copies_what_was_edited(tree):
    replacing(TRAINER, "return features", "features = dict(features)\n    return features")(tree)
    assert shared_parts_are_identical(tree)[1]
    subprocess.run([sys.executable, tree / "tools/fix_copies.py"], check=True)
    assert not shared_parts_are_identical(tree)[1]
    assert "features = dict(features)" in (tree / LOOP).read_text()


def test_a_new_task_changes_no_file_that_another_new_task_changes(tree):
    """But README's table, which is made anew."""

    def change(text: str) -> str:
        return text.replace("text-classification", "new-task").replace("text classification", "new task")

    for folder in [tree / manifest.FOLDER, *(tree / "examples").iterdir()]:
        if (folder / "text-classification").is_dir():
            shutil.copytree(folder / "text-classification", folder / "new-task")
    described = tree / manifest.FOLDER / "new-task/manifest.toml"
    described.write_text(change(described.read_text()))
    found = [problem for guard in GUARDS for problem in guard(tree)[1]]
    assert found == ["README.md shows other tasks: `make fix-copies`"]
    before = len(manifest.scripts(ROOT))
    subprocess.run(["make", "fix-copies", f"PYTHON={sys.executable}"], cwd=tree, check=True)
    for guard, (least, for_each_script) in GUARDS.items():
        number, problems = guard(tree)
        assert problems == []
        assert number >= least + for_each_script * (before + 4), guard
    assert "| new task, GLUE |" in (tree / "README.md").read_text()
