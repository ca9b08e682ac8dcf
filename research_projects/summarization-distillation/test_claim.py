"""Runs the script and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
What today's scripts are to read is left in for_today/.
"""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT, SEEDS = HERE / "run_summarization_distillation.py", (0, 1, 2)
OPTIONS = ["--students", "shrunk", "scratch"]
SHRUNK, SIZE = 0.95, 0.65  # of the teacher's ROUGE-L, at least; of its parameters, at most
SCRATCH = 0.4  # the loss of a token is higher by this, at least, where the weights were random


def main() -> None:
    problems, found = [], {}
    left = HERE / "for_today" / "shrunk"
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as place:
            output = Path(place, "out")
            command = [sys.executable, SCRIPT, *OPTIONS, "--seed", str(seed), "--output_dir", output]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                sys.exit("The script fails.")
            found[seed] = results = json.loads((output / "results.json").read_text())
            if seed == SEEDS[0]:
                left.mkdir(parents=True)
                shutil.copytree(output / "shrunk", left / "model")
        teacher, shrunk, scratch = (results[name] for name in ("teacher", "shrunk", "scratch"))
        reached = shrunk["rougeL"] / teacher["rougeL"]
        if reached < SHRUNK:
            problems.append(f"seed {seed}: ROUGE-L is {reached:.1%} of the teacher's")
        if scratch["loss"] - shrunk["loss"] < SCRATCH:
            problems.append(f"seed {seed}: losses of {shrunk['loss']}, from scratch {scratch['loss']}")
        if (
            shrunk["parameters"] > SIZE * teacher["parameters"]
            or shrunk["parameters"] != scratch["parameters"]
        ):
            problems.append(f"seed {seed}: {shrunk['parameters']} parameters")
    (left / "validation.jsonl").write_bytes(gzip.decompress((HERE / "data/validation.jsonl.gz").read_bytes()))
    flags = "--text_column text --summary_column summary --max_source_length 160 --max_target_length 32"
    results = {"eval_loss": found[SEEDS[0]]["shrunk"]["loss"]}
    case = {"task": "summarization", "flags": flags.split(), "results": results}
    (left / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    if problems:
        sys.exit("\n".join(["The claim does not hold:", *problems, json.dumps(found)]))

    def of(name: str, figure: str) -> str:
        return ", ".join(f"{one[name][figure]:.2f}" for one in found.values())

    sizes = {name: one["parameters"] for name, one in found[SEEDS[0]].items()}
    summary = (
        f"ROUGE-L, three seeds: the teacher {of('teacher', 'rougeL')}, half its layers {of('shrunk', 'rougeL')}, as large "
        f"from scratch {of('scratch', 'rougeL')}; loss of a token {of('teacher', 'loss')}, "
        f"{of('shrunk', 'loss')}, {of('scratch', 'loss')}"
    )
    command = ["python", SCRIPT.name, *OPTIONS, "--output_dir", "out"]
    printed = {"command": command, "summary": summary, "same": {"parameters": sizes}}
    print(json.dumps(printed | {"of_machine": {"seeds": found}}))


if __name__ == "__main__":
    main()
