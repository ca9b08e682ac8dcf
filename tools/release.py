"""Makes a release: checks that everything states its version, runs the tests, and tags the commit.

python3 tools/release.py 0.2.0 --tests "make test-examples"
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import manifest

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version")
    parser.add_argument(
        "--tests", default="make test-examples", help="command that must succeed (%(default)s)"
    )
    args = parser.parse_args()
    tag, commit = f"v{args.version}", git("rev-parse", "HEAD")

    problems = disagreements(ROOT, args.version)
    if not re.fullmatch(r"\d+\.\d+\.\d+", args.version):
        problems.append(f"{args.version} is not a version of the form 1.2.3.")
    if git("tag", "--list", tag):
        problems.append(f"The tag {tag} exists already.")
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
    git("tag", "--annotate", tag, commit, "--message", f"Triptych {args.version}")
    print(f"Tagged {tag}. To publish it: git push origin {tag}")


if __name__ == "__main__":
    main()
