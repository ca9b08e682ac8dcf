"""The versions of docs/versions.toml: README's table, their tags, and proof that an old one still runs.

    python3 tools/versions.py table                               writes the table
    python3 tools/versions.py tags                                makes the tags that are missing
    python3 tools/versions.py test [--version 0.1.0] [--framework flax]

`test` checks a version out in a temporary folder, installs it by its constraints/<framework>.txt, or by its
requirements where it has none, trains with its summarization script on a few rows, and has today's scripts,
those whose environments are built, evaluate the checkpoint.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path
from typing import Any

import manifest

ROOT = Path(__file__).resolve().parents[1]
FILE = "docs/versions.toml"
LIBRARIES = ("transformers", "torch", "tensorflow", "keras-hub", "jax", "flax")
KEYS = ("commit", "date", "python", *LIBRARIES)
BEGIN, END = "<!-- versions: made by `make fix-copies` -->\n", "<!-- end of versions -->\n"


def versions(root: Path) -> dict[str, dict[str, str]]:
    """What is known of each version, the oldest first."""
    return tomllib.loads((root / FILE).read_text())


def table(root: Path) -> str:
    """README's table, the newest version first."""
    rows = [["version", "commit", *KEYS[1:]], ["---"] * (1 + len(KEYS))]
    for version, about in reversed(versions(root).items()):
        rows.append([version, about["commit"][:7], *(about[key] for key in KEYS[1:])])
    return manifest.as_table(rows)


def with_table(readme: str, root: Path) -> str:
    """README with the table between its two marks; see `manifest.between`."""
    return manifest.between(readme, BEGIN, END, table(root))


def git(root: Path, *words: str) -> str:
    """What git prints; "" where it fails."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()


def problems(root: Path) -> list[str]:
    """What in the list of versions is not so: one sentence each.

    A copy without history, a shallow clone or an export, cannot tell which commits there are.
    """
    found = []
    has_history = git(root, "rev-parse", "--is-shallow-repository") == "false"
    has_history &= git(root, "rev-list", "--count", "HEAD") not in ("", "1")
    for version, about in versions(root).items():
        if missing := [key for key in KEYS if not about.get(key)]:
            found.append(f"{FILE}: {version} lacks {', '.join(missing)}.")
        if f"## {version}\n" not in (root / "CHANGELOG.md").read_text():
            found.append(f"CHANGELOG.md says nothing of {version}.")
        stated = git(root, "show", f"{about.get('commit')}:pyproject.toml")
        if has_history and f'\nversion = "{version}"\n' not in stated:
            found.append(f"{FILE}: the commit of {version} is not there, or of another version.")
    return found


def make_tags(root: Path) -> list[str]:
    """Makes the annotated tags that are missing, the same in every clone; returns what was not possible."""
    found = []
    for version, about in versions(root).items():
        tag, commit = f"v{version}", about["commit"]
        present = git(root, "rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}")
        *who, date = git(root, "show", "--no-patch", "--format=%cn%n%ce%n%cI", commit).split("\n") or [""]
        if present and present != commit:
            found.append(f"{tag} is another commit, {present}: `git tag --delete {tag}`, then again.")
        elif not date:
            found.append(f"The commit of {version} is not here: `git fetch --unshallow`, or clone the whole.")
        elif not present:
            # A clone in which nobody has told git a name yet can make tags as well.
            names = {"GIT_COMMITTER_NAME": who[0], "GIT_COMMITTER_EMAIL": who[1], "GIT_COMMITTER_DATE": date}
            command = ["git", "tag", "--annotate", tag, commit, "--message", f"Triptych {version}"]
            if subprocess.run(command, cwd=root, env=os.environ | names).returncode:
                found.append(f"git could not make {tag}.")
            else:
                print(f"{tag} is {commit}.")
    return found


def run(*command: Any, cwd: Path, tree: Path | None = None) -> None:
    """Runs a command, with the package of a tree and without network if one is given; a failure ends the
    process."""
    folders = f"{ROOT / 'tests/fixtures/offline'}{os.pathsep}{tree and tree / 'src'}"
    alone = {"PYTHONPATH": folders, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""} if tree else {}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=os.environ | alone)
    if done.returncode:
        sys.exit(f"This failed in {cwd}: {' '.join(map(str, command))}")


def install(old: Path, framework: str, place: Path) -> Path:
    """The interpreter of a new environment with what a version's summarization scripts need."""
    venv.create(place, with_pip=True)
    folder, constraints = old / "examples" / framework / "summarization", place / "constraints.txt"
    given = old / "constraints" / f"{framework}.txt"
    # Without constraints pip may bring a torch that goes with gigabytes for GPUs.
    constraints.write_text(given.read_text() if given.is_file() else "torch==2.13.*\n")
    print(f"Installing by {given.name if given.is_file() else 'requirements.txt'}.", flush=True)
    pip = [place / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    run(*pip, "--requirement", "requirements.txt", "--constraint", constraints, cwd=folder)
    return place / "bin/python"


def test(version: str, framework: str, root: Path) -> None:
    """Trains with a version's script, and evaluates what it wrote with today's; ends the process if one fails
    or comes to another loss."""
    readers = {
        path: root / ".venv" / Path(path).parts[1] / "bin/python"
        for path in manifest.tasks(root)["summarization"]["scripts"].values()
    }
    readers = {path: python for path, python in readers.items() if python.is_file()}
    if not readers:
        sys.exit("No environment of today's scripts is built: `make env`.")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        old, rows = place / "triptych", place / "rows"
        run("git", "worktree", "add", "--detach", old, versions(root)[version]["commit"], cwd=root)
        try:
            python = install(old, framework, place / "environment")
            samples = [python, "-m", "triptych.samples"]
            run(*samples, "bulletins", rows, "--rows", "40", cwd=place, tree=old)
            words = [rows / "tokenizer", "--files", rows / "train.jsonl", "--vocab_size", "400"]
            run(*samples, "tokenizer", *words, cwd=place, tree=old)
            sizes = "d_model=32,d_kv=8,d_ff=64,num_layers=2,num_heads=4"
            words = [
                "--model_type",
                "t5",
                "--config_overrides",
                sizes,
                "--tokenizer_name",
                rows / "tokenizer",
            ]
            words += ["--train_file", rows / "train.jsonl", "--do_train", "--max_steps", "4"]
            script = f"examples/{framework}/summarization/run_summarization.py"
            expected = evaluated(python, old, script, rows, place / "model", *words)
            for path, today in readers.items():
                out = place / path.replace("/", "-")
                found = evaluated(today, root, path, rows, out, "--model_name_or_path", place / "model")
                print(f"{version}, {framework}: eval_loss {expected}; {path}: {found}", flush=True)
                if abs(found - expected) > 1e-5 * expected:
                    sys.exit(f"{path} evaluates the checkpoint of {version} otherwise.")
        finally:
            run("git", "worktree", "remove", "--force", old, cwd=root)


def evaluated(python: Path, tree: Path, script: str, rows: Path, out: Path, *words: Any) -> float:
    """The `eval_loss` that a script of a tree comes to."""
    evaluation = ["--validation_file", rows / "validation.jsonl", "--do_eval", "--output_dir", out]
    run(python, tree / script, *words, *evaluation, cwd=rows, tree=tree)
    return json.loads((out / "eval_results.json").read_text())["eval_loss"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", choices=["table", "tags", "test"])
    parser.add_argument("--version", choices=versions(ROOT), help="one instead of all")
    parser.add_argument("--framework", default="pytorch", choices=["pytorch", "tensorflow", "flax"])
    args = parser.parse_args()
    if args.what == "table":
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(), ROOT))
    elif args.what == "tags":
        if found := make_tags(ROOT):
            sys.exit("\n".join(found))
    else:
        for version in [args.version] if args.version else versions(ROOT):
            test(version, args.framework, ROOT)


if __name__ == "__main__":
    main()
