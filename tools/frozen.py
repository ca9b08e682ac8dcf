"""Frozen projects: folders of legacy/ and research_projects/ that keep working with the releases they pin.

    python3 tools/frozen.py test [PROJECT] [--renew]    installs the pins, checks the claim; writes the record
    python3 tools/frozen.py test --ci [COMMIT]          what changed since it, one more in turn; minutes
    python3 tools/frozen.py check [--ci]                whether the index still has every pin (needs uv)
    python3 tools/frozen.py lock PROJECT                writes lock.txt from requirements.txt (needs uv)
    python3 tools/frozen.py table                       writes the tables in the READMEs from the records

A project's `test_claim.py` runs its script, ends with another code than 0 if the claim does not hold, and
prints JSON as its last line: `command`, a `summary` for people, the figures that are the `same` on every
machine and those `of_machine`. It runs without network, in a copy of the folder, with an environment in
.venv/frozen-<hash of the pins> or in $TRIPTYCH_FROZEN; projects with the same pins share one.

What it leaves in for_today/<name>/ is then scored by today's scripts of a task, in every form, each with the
environment of its framework: tests/frozen says what has to be there.
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import manifest

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("legacy", "research_projects")
RECORD, TEST, PINS, LOCK = "last_known_good.json", "test_claim.py", "requirements.txt", "lock.txt"
RESULTS = ("summary", "same", "of_machine")
LEFT = "for_today"  # folder with what today's scripts are to score
SECONDS_OF_CI = 220  # of one core, by the records, for what installs, tests and scores
BEGIN, END = (
    "<!-- last known good: made by `make test-frozen RENEW=1` -->\n",
    "<!-- end of last known good -->\n",
)


def projects(root: Path) -> list[Path]:
    return sorted(path.parent for kind in KINDS for path in root.glob(f"{kind}/*/{PINS}"))


def files(folder: Path) -> list[Path]:
    """What belongs to a project: what git knows or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."]
    names = subprocess.run(listed, cwd=folder, check=True, capture_output=True, text=True).stdout.split("\0")
    return [folder / name for name in sorted(names) if (folder / name).is_file()]


def hash_of(paths: list[Path], *more: str) -> str:
    """A SHA-256 over names and contents of files."""
    found = hashlib.sha256("\n".join(more).encode())
    for path in paths:
        found.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def hash_of_project(folder: Path) -> str:
    """Over everything but the record, which states it."""
    paths = [path for path in files(folder) if path.name != RECORD]
    return hash_of(paths, *(path.relative_to(folder).as_posix() for path in paths))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD).read_text()) if (folder / RECORD).is_file() else {}


def pins(folder: Path) -> list[str]:
    return re.findall(r"^\w.*==\S+", (folder / PINS).read_text(), re.MULTILINE)


def environment(folder: Path, anew: bool) -> Path:
    """The interpreter of an environment with the project's pins, which is made if it is not there."""
    name = hash_of([folder / PINS, folder / LOCK], sys.version)[:12]
    place = Path(os.environ.get("TRIPTYCH_FROZEN") or ROOT / ".venv") / f"frozen-{name}"
    python, complete = place / "bin/python", place / "complete"  # an interrupted installation counts as none
    if anew or not complete.is_file():
        print(f"Installing the pins of {folder.name} in {place}.", flush=True)
        venv.create(place, clear=True, with_pip=True)
        # Few of the modules are ever imported: Python compiles these then.
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-compile"]
        subprocess.run([*pip, "--requirement", folder / PINS], check=True)
        complete.touch()
    return python


def run_test(folder: Path, python: Path, left: Path) -> dict[str, Any]:
    """What a project's test prints, with its seconds and memory.

    Args:
        left: becomes the folder that it leaves for today's scripts, if it leaves one.

    Raises:
        ValueError: it fails, or prints something else.
    """
    # Neither the package nor what the caller's shell holds reaches a project, and no network.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TRIPTYCH_"))}
    offline = {"PYTHONPATH": str(ROOT / "tests/fixtures/offline"), "HF_HUB_OFFLINE": "1"}
    alike = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as place:
        for path in files(folder):
            copy = Path(place, path.relative_to(folder))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        began = time.monotonic()
        process = subprocess.Popen(
            [python, TEST], cwd=place, env=kept | offline | alike, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if Path(place, LEFT).is_dir():
            shutil.move(Path(place, LEFT), left)
    if process.returncode:
        raise ValueError(f"its {TEST} ended with {process.returncode}.\n{printed}".strip())
    try:
        found = json.loads(printed.splitlines()[-1])
        results = {"command": " ".join(found["command"]), **{key: found[key] for key in RESULTS}}
    except (IndexError, KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(
            f"the last line of its {TEST} is no JSON with command, {', '.join(RESULTS)}."
        ) from None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": round(seconds), "memory_in_mb": round(usage.ru_maxrss / unit), **results}


def scored_today(left: Path) -> dict[str, dict[str, float]]:
    """The loss that today's scripts have for each model that a test left, by the scripts' forms.

    Raises:
        ValueError: another one than the project's own scripts, or none.
    """
    command = [ROOT / ".venv/tools/bin/python", "-m", "pytest", "--quiet", "--color", "no", "tests/frozen"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"TRIPTYCH_LEFT": str(left)}, capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(
            f"today's scripts do not score alike what it left.\n{done.stdout}{done.stderr}".strip()
        )
    scored = {path.parent.name: json.loads(path.read_text()) for path in sorted(left.glob("*/scored.json"))}
    if lacking := {path.name for path in left.iterdir()} - scored.keys():
        raise ValueError(f"today's scripts have scored nothing of {', '.join(sorted(lacking))}.")
    return scored


def lacking_for_today() -> list[Path]:
    """Environments that today's scripts need and that are not there."""
    places = [ROOT / ".venv" / name for name in ("tools", "pytorch", "tensorflow", "flax")]
    return [place for place in places if not (place / "bin/python").exists()]


def test(folder: Path, renew: bool, ci: bool) -> None:
    """Checks a project's claim, and that it comes to the figures of its record; or writes that.

    Args:
        ci: where today's scripts have no environments, it is only told that they score nothing.

    Raises:
        ValueError: what is wrong.
    """
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    python = environment(folder, anew=renew)
    installed = round(time.monotonic() - began)
    with tempfile.TemporaryDirectory() as place:
        left = Path(place, LEFT)
        found = run_test(folder, python, left)
        if left.is_dir() and ci and (lacking := lacking_for_today()):
            print(f"{folder.name}: not scored by today's scripts: there is no {lacking[0]}.", flush=True)
        elif left.is_dir():
            found["scored_today"] = scored_today(left)
    known, after = record(folder), resource.getrusage(resource.RUSAGE_CHILDREN)
    if renew:
        place = {
            "date": str(datetime.date.today()),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "pins": pins(folder),
            "cpu_seconds_of_all": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime),
            "seconds_of_installing": installed,
        }
        text = json.dumps({**place, **found, "files": hash_of_project(folder)}, indent=1, ensure_ascii=False)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")
        write_tables(ROOT)
    elif found["same"] != known.get("same"):
        raise ValueError(
            f"it came to {json.dumps(found['same'])}, its record says {json.dumps(known.get('same'))}."
        )
    print(f"{folder.name}: {found['seconds']} s, {found['memory_in_mb']} MB. {found['summary']}.", flush=True)


def cost(folder: Path) -> int:
    """The seconds of one core that a project took when its record was written."""
    return record(folder).get("cpu_seconds_of_all", 0)


def concerned(root: Path, commit: str) -> tuple[list[Path], list[Path]]:
    """Which projects CI tests, and which not although they changed.

    Tested are those that differ from their records or changed since a commit, and one more, in turn by the
    number of commits, as far as `SECONDS_OF_CI` are enough. Of others the record tells, which no failed run
    writes.
    """

    def git(*words: str) -> list[str]:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.split("\n")

    everything = projects(root)
    touched = git("diff", "--name-only", commit, "--", *KINDS)
    changed = [
        one
        for one in everything
        if record(one).get("files") != hash_of_project(one)
        or any(path.startswith(f"{one.relative_to(root).as_posix()}/") for path in touched)
    ]
    found: list[Path] = []
    number, seconds = int(git("rev-list", "--count", "HEAD")[0] or 0), SECONDS_OF_CI
    for one in sorted(changed, key=cost):
        if cost(one) <= seconds:
            found.append(one)
            seconds -= cost(one)
    others = [one for one in everything if one not in changed and cost(one) <= seconds]
    in_turn = [others[number % len(others)]] if others else []
    return found + in_turn, [one for one in changed if one not in found]


def resolved(folder: Path, locked: bool) -> str:
    """All pins that the direct ones need, on any system, a line each; with those of the lock if `locked`.

    Raises:
        ValueError: they are no longer there, or do not go together.
        ConnectionError: the index does not answer, or there is no uv to ask it.
    """
    lines = (folder / PINS).read_text().splitlines(keepends=True)
    given = "".join(line for line in lines if locked or not line.startswith("-c "))
    words = "pip compile --universal --python-version 3.11 --no-header --no-annotate -"
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise ConnectionError(
            "uv is not beside this Python: .venv/tools/bin/python has one, by `make .venv/tools`."
        )
    done = subprocess.run([uv, *words.split()], cwd=folder, input=given, capture_output=True, text=True)
    if done.returncode == 2:  # 1 says that there is no solution
        raise ConnectionError(done.stderr.strip())
    if done.returncode or "yanked" in done.stderr:
        raise ValueError(done.stderr.strip())
    return done.stdout


def check(folder: Path) -> None:
    """
    Raises:
        ValueError: a pin is gone, or the lock is not all that the pins need.
    """
    if resolved(folder, locked=True) != (folder / LOCK).read_text():
        raise ValueError(f"{LOCK} is not what {PINS} needs: python3 tools/frozen.py lock {folder.name}")
    print(f"{folder.name}: the index has all of {LOCK}.")


def table(root: Path, kind: str) -> str:
    rows = [["project", "held on", "Python", "installing", "its test", "memory", "seen"], ["---"] * 7]
    for folder in projects(root):
        if folder.parent.name == kind and (known := record(folder)):
            took = [
                f"{known['seconds_of_installing']} s",
                f"{known['seconds']} s",
                f"{known['memory_in_mb']} MB",
            ]
            name = f"[{folder.name}]({folder.name})"
            rows.append([name, known["date"], known["python"], *took, known["summary"]])
    return manifest.as_table(rows)


def with_table(readme: str, root: Path, kind: str) -> str:
    """The README of a kind with the table between its two marks; see `manifest.between`."""
    return manifest.between(readme, BEGIN, END, table(root, kind))


def write_tables(root: Path) -> None:
    for kind in KINDS:
        if (readme := root / kind / "README.md").is_file():
            readme.write_text(with_table(readme.read_text(), root, kind))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    kinds.add_parser("table")
    for what in ("test", "check", "lock"):
        kind = kinds.add_parser(what, allow_abbrev=False)
        which = kind.add_mutually_exclusive_group(required=what == "lock")
        which.add_argument("project", nargs="?", choices=[one.name for one in projects(ROOT)])
        if what == "test":
            kind.add_argument("--renew", action="store_true", help="install anew, and write the record")
            which.add_argument(
                "--ci", nargs="?", const="HEAD~1", metavar="COMMIT", help="what changed since it"
            )
        elif what == "check":
            kind.add_argument("--ci", action="store_true", help="no failure where the index does not answer")
    args = parser.parse_args()
    if args.what == "table":
        return write_tables(ROOT)
    chosen = [one for one in projects(ROOT) if args.project in (None, one.name)]
    if args.what == "test" and args.ci:
        chosen, too_long = concerned(ROOT, args.ci)
        for one in too_long:
            why = f"it takes {cost(one)} s of a core: `make test-frozen`"
            print(f"{one.name} changed and is not tested here: {why}.", flush=True)

    problems = []
    for folder in chosen:
        try:
            if args.what == "test":
                test(folder, args.renew, ci=bool(args.ci))
            elif args.what == "check":
                check(folder)
            else:
                (folder / LOCK).write_text(resolved(folder, locked=False))
        except subprocess.CalledProcessError:
            problems.append(f"{folder.name}: its pins could not be installed: see pip's messages above.")
        except ConnectionError as error:
            if args.what == "lock" or not args.ci:
                problems.append(f"{folder.name}: {error}")
            else:  # pip, which installs by other settings, finds the same when it is the project's turn
                print(f"{folder.name}: not checked. {error}", flush=True)
        except ValueError as error:
            problems.append(f"{folder.name}: {error}")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
