"""Builds virtual environments in .venv/, each once: a second call is instant until a requirement changes.

    python3 tools/environment.py pytorch tensorflow flax tools lowest-flax newest-flax xla

A framework's environment holds what its task folders require, the package as an editable install, pytest, and
what reads the checkpoints of transformers 4.
`lowest-<framework>` has every requirement at its lower bound; `newest-<framework>` is brought up to date at
each call. `tools` holds what checks the code, and no tensor library. `xla` is PyTorch's with torch_xla, and
with the only release of torch that it goes with.

Of torch all but `lowest-pytorch` and `xla` hold one release, 2.13 or $TORCH: with the next one pip may bring
5 GB that only a GPU has a use for.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lower_bounds(requirements: list[str]) -> list[str]:
    """Constraints for pip, `name==lowest`, from requirements of the form `name>=lowest,<limit`."""
    bounds = (re.match(r"([\w.-]+)(?:\[.*\])?>=([^,]+)", requirement) for requirement in requirements)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def build(name: str) -> None:
    """Makes `.venv/<name>` what the requirements say; a failure ends the process."""
    kind, _, framework = name.rpartition("-")
    framework = "pytorch" if name == "xla" else framework
    extras = [framework, "test", "migrate"]
    files = sorted((ROOT / "examples" / framework).glob("*/requirements.txt"))
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = pyproject["project"]["optional-dependencies"]
    requirements = [
        *pyproject["project"]["dependencies"],
        *(requirement for extra in extras for requirement in optional[extra]),
        *(line for file in files for line in file.read_text().splitlines()),
    ]
    constraints = lower_bounds(requirements) if kind == "lowest" else []
    if framework == "pytorch" and kind != "lowest":
        constraints = ["torch==2.9.0" if name == "xla" else f"torch=={os.environ.get('TORCH') or '2.13'}.*"]
    recipe = json.dumps(
        [str(ROOT), sys.version, pyproject["build-system"], *requirements, constraints], indent=1
    )
    folder = ROOT / ".venv" / name
    record = folder / "built-from.json"  # written last, so that an interrupted build counts as none
    is_built = record.is_file() and record.read_text() == recipe
    if is_built and kind != "newest":
        return

    pip = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    if is_built:
        print(f"Looking for newer releases for .venv/{name}.", flush=True)
        pip += ["--upgrade", "--upgrade-strategy", "eager"]
    else:
        print(f"Building .venv/{name}: this takes some minutes.", flush=True)
        record.unlink(missing_ok=True)
        venv.create(folder, clear=True, with_pip=True)
        (folder / "constraints.txt").write_text("\n".join(constraints) + "\n")
    pip += ["--constraint", folder / "constraints.txt"]
    steps = [([*pip, "--editable", f".[{','.join(extras)}]"], ROOT)]
    if name == "xla":
        steps.insert(0, ([*pip, "torch==2.9.0", "torch_xla==2.9.0"], ROOT))
    if files:
        # The files name the package as ../../.., which pip reads from where it runs: any task folder will do.
        named = [part for file in files for part in ("--requirement", file)]
        steps.insert(0, ([*pip, *named], files[0].parent))
    for command, where in steps:
        if subprocess.run(command, cwd=where).returncode:
            sys.exit(f".venv/{name} could not be built: see pip's messages above.")
    record.write_text(recipe)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        build(name)
