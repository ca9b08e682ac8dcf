"""Makes a release: checks that everything states its version, runs the tests, writes down what they ran with,
tags that commit, and adds it to the list of versions.

    python3 tools/release.py 0.2.0 --tests "make test-examples"

The tagged commit has constraints/<framework>.txt, the releases that are installed in .venv/<framework>. The
one after it has the version in docs/versions.toml and README's table: no commit can hold its own name.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import manifest
import versions

ROOT = Path(__file__).resolve().parents[1]


def disagreements(root: Path, version: str) -> list[str]:
    """What does not state this version, or would not install it: one sentence each."""
    scripts = list(manifest.scripts(root))
    problems = []
    for path, pattern in [
        ("pyproject.toml", r'^version = "(.*)"'),
        ("src/triptych/__init__.py", r'^__version__ = "(.*)"'),
        ("CHANGELOG.md", r"^## (\d\S*)"),
    ]:
        text = (root / path).read_text() if (root / path).is_file() else ""
        stated = re.search(pattern, text, re.MULTILINE)
        if stated is None:
            problems.append(f"{path} states no version: a line that matches {pattern} is missing.")
        elif stated[1] != version:
            problems.append(f"{path} states {stated[1]}, not {version}.")
    for script in scripts:
        stated = re.search(r'^require\(">=([\d.]+),<([\d.]+)"', (root / script).read_text(), re.MULTILINE)
        if stated is None:
            problems.append(f'{script} states no versions: a line require(">=…,<…" is missing.')
        elif not numbers(stated[1]) <= numbers(version) < numbers(stated[2]):
            problems.append(f"{script} states >={stated[1]},<{stated[2]}, which leaves out {version}.")
        framework = Path(script).parts[1]
        requirements = (root / script).parent / "requirements.txt"
        if f"../../..[{framework}]" not in requirements.read_text().splitlines():
            problems.append(f"{requirements.relative_to(root)} does not install the package beside it.")
    return sorted(set(problems))


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def installed(root: Path, framework: str) -> list[str]:
    """What an environment of the suite holds besides the package, as `name==release`; torch's builds for one
    device are the release.

    Raises:
        ValueError: there is no such environment, or something in it has no release.
    """
    python = root / ".venv" / framework / "bin/python"
    if not python.is_file():
        raise ValueError(f".venv/{framework}, with which the tests run, is not there")
    command = [python, "-m", "pip", "freeze", "--exclude", "triptych"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    if others := [line for line in lines if not re.fullmatch(r"[\w.-]+==\S+", line)]:
        raise ValueError(f".venv/{framework} holds what is no release: {', '.join(others)}")
    return [line.partition("+")[0] for line in lines]


def commit_constraints(found: dict[str, list[str]], version: str) -> None:
    """Commits what each framework's environment holds, where it differs from what is committed."""
    (ROOT / "constraints").mkdir(exist_ok=True)
    for framework, lines in found.items():
        head = (
            f"# What the suite of {version} ran with, on Python {sys.version_info[0]}.{sys.version_info[1]}"
        )
        (ROOT / "constraints" / f"{framework}.txt").write_text("\n".join([head, *lines]) + "\n")
    git("add", "constraints")
    if git("status", "--porcelain"):
        git("commit", "--message", f"What the suite of {version} ran with")


def commit_to_list(found: dict[str, list[str]], version: str, commit: str) -> None:
    """Commits the version in docs/versions.toml, and README's table with it."""
    releases = dict(line.split("==") for lines in found.values() for line in lines)
    about = {
        "commit": commit,
        "date": git("show", "--no-patch", "--format=%cs", commit),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        **{name: releases[name] for name in versions.LIBRARIES},
    }
    lines = [f'\n["{version}"]', *(f'{key} = "{value}"' for key, value in about.items())]
    with (ROOT / versions.FILE).open("a") as file:
        file.write("\n".join(lines) + "\n")
    readme = ROOT / "README.md"
    readme.write_text(versions.with_table(readme.read_text(), ROOT))
    git("commit", "--all", "--message", f"{version} in the list of versions")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version")
    parser.add_argument(
        "--tests", default="make test-examples", help="command that must succeed (%(default)s)"
    )
    args = parser.parse_args()
    tag = f"v{args.version}"

    problems = disagreements(ROOT, args.version)
    if not re.fullmatch(r"\d+\.\d+\.\d+", args.version):
        problems.append(f"{args.version} is not a version of the form 1.2.3.")
    if git("tag", "--list", tag):
        problems.append(f"The tag {tag} exists already.")
    if args.version in versions.versions(ROOT):
        problems.append(f"{versions.FILE} has {args.version} already.")
    problems += versions.problems(ROOT)
    if changed := git("status", "--porcelain"):
        problems.append(f"These changes are not committed:\n{changed}")
    if problems:
        print(
            "\n".join([f"No release {args.version}:", *(f"  - {problem}" for problem in problems)]),
            file=sys.stderr,
        )
        sys.exit(2)
    if subprocess.run(args.tests, shell=True, cwd=ROOT).returncode:
        sys.exit(f"No release {args.version}: the tests fail ({args.tests}).")
    try:
        found = {name: installed(ROOT, name) for name in ("pytorch", "tensorflow", "flax")}
    except ValueError as error:
        sys.exit(f"No release {args.version}: {error}.")
    commit_constraints(found, args.version)
    commit = git("rev-parse", "HEAD")
    git("tag", "--annotate", tag, commit, "--message", f"Triptych {args.version}")
    commit_to_list(found, args.version, commit)
    print(f"Tagged {tag}, and listed it in the commit after. To publish both: git push origin HEAD {tag}")


if __name__ == "__main__":
    main()
