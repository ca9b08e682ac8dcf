"""Runs the script and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from importlib import metadata
from itertools import combinations
from pathlib import Path

SCRIPT = Path(__file__).with_name("run_deduplication.py")
OPTIONS = ["--exact", "--seeds", "0", "1", "2"]
# Of each seed, by the figure's name: the least and the most
BOUNDS = {
    "recall": (0.98, 1),
    "mean_error_of_estimate": (0, 0.05),
    "share_of_pairs_compared": (0, 0.001),
    "leaked_into_test": (0.04, 1),
    "leaked_when_kept": (0, 0),
}
TIMES_AS_FAST = 3  # as the comparison of all pairs, at least


def duplicates_by_other_means(threshold: float) -> int:
    """How many pairs are near-duplicates, by an index of which files have a shingle, without hashes."""
    having, sizes = defaultdict(list), Counter()
    lines = SCRIPT.with_name("requirements.txt").read_text().splitlines()
    packages = [line.partition("==")[0] for line in lines if "==" in line and not line.startswith("numpy")]
    for package in packages:
        for file in metadata.files(package):
            if file.suffix == ".py":
                tokens = re.findall(
                    r"\w+|[^\w\s]", file.locate().read_text(encoding="utf-8", errors="replace")
                )
                runs = set(zip(*(tokens[start:] for start in range(5)), strict=False))
                if len(runs) >= 50:
                    sizes[str(file)] = len(runs)
                    for run in runs:
                        having[run].append(str(file))
    both = Counter()
    for files in having.values():
        both.update(combinations(sorted(files), 2))
    return sum(n / (sizes[one] + sizes[other] - n) >= threshold for (one, other), n in both.items())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), *OPTIONS, "--output_dir", folder]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit("The script fails.")
        results = json.loads(Path(folder, "results.json").read_text())
        kept = Path(folder, "kept.txt").read_text().splitlines()
        gone = [
            name for group in json.loads(Path(folder, "duplicates.json").read_text()) for name in group[1:]
        ]
    exact, seeds = results["exact"], list(results["seeds"].values())
    faster = [round(exact["cpu_seconds"] / figures.pop("cpu_seconds"), 1) for figures in seeds]

    problems = [
        f"seed {seed}: {name} is {figures[name]}, not {least} to {most}"
        for seed, figures in results["seeds"].items()
        for name, (least, most) in BOUNDS.items()
        if not least <= figures[name] <= most
    ]
    if min(faster) < TIMES_AS_FAST:
        problems.append(f"{min(faster)} times as fast as all pairs, not {TIMES_AS_FAST}")
    if (others := duplicates_by_other_means(0.8)) != exact["near_duplicates"]:
        problems.append(f"{exact['near_duplicates']} pairs by all comparisons, {others} by an index")
    if sorted({*kept, *gone}) != sorted(kept + gone) or len(kept + gone) != results["files"]:
        problems.append("a file is neither kept nor a duplicate, or both")
    if problems:
        sys.exit("\n".join(["The claim does not hold:", *problems]))

    leaks = [f"{figures['leaked_into_test']:.0%}" for figures in seeds]
    found = min(figures["near_duplicates"] for figures in seeds)
    compared = max(figures["candidates"] for figures in seeds)
    summary = (
        f"{found} of {exact['near_duplicates']} pairs found in each of three seeds, with at most {compared} "
        f"of {results['pairs']:,} compared, {min(faster):.0f} times as fast; {', '.join(leaks)} of the test "
        "files had a near-duplicate in training, then none"
    )
    same = {name: results[name] for name in ("files", "pairs", "seeds")}
    same["exact"] = {name: exact[name] for name in ("near_duplicates", "files_in_them")}
    # Another processor may add up in another order.
    rounded = json.loads(json.dumps(same), parse_float=lambda text: round(float(text), 6))
    command = ["python", SCRIPT.name, *OPTIONS, "--output_dir", "out"]
    of_machine = {"times_as_fast": faster}
    print(json.dumps({"command": command, "summary": summary, "same": rounded, "of_machine": of_machine}))


if __name__ == "__main__":
    main()
