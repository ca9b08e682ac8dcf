"""Runs the script and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
"""

import csv
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT, SEEDS = HERE / "run_zero_shot_distillation.py", [str(seed) for seed in range(10)]
MEAN, EACH = 0.03, 0.01  # the students are better than the teacher by these, and each of them
TIMES_AS_FAST, SHARE = 10, 0.01  # each is faster and smaller by these


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        # What is trained on has no labels, so that none can have been used.
        rows = [
            json.loads(line)
            for line in gzip.decompress((HERE / "data/train.jsonl.gz").read_bytes()).splitlines()
        ]
        unlabelled = Path(place, "unlabelled.jsonl")
        unlabelled.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
        command = [
            sys.executable,
            SCRIPT,
            "--train_file",
            unlabelled,
            "--seeds",
            *SEEDS,
            "--output_dir",
            f"{place}/out",
        ]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            sys.exit("The script fails.")
        results = json.loads(Path(place, "out/results.json").read_text())
        with Path(place, "out/predictions.tsv").open() as file:
            predicted = [row["prediction"] for row in csv.DictReader(file, delimiter="\t")]
    lines = gzip.decompress((HERE / "data/test.jsonl.gz").read_bytes()).splitlines()
    topics = [json.loads(line)["topic"] for line in lines]

    teacher, students = results["teacher"], results["seeds"]
    problems = []
    above = [student["accuracy"] - teacher["accuracy"] for student in students.values()]
    if sum(above) / len(above) < MEAN or min(above) < EACH:
        problems.append(f"the students are better than the teacher by {[f'{one:.1%}' for one in above]}")
    for seed, student in students.items():
        faster = student["texts_a_cpu_second"] / teacher["texts_a_cpu_second"]
        share = student["parameters"] / teacher["parameters"]
        if faster < TIMES_AS_FAST or share > SHARE:
            problems.append(f"seed {seed}: {faster:.0f} times as fast with {share:.2%} of the parameters")
    counted = sum(one == other for one, other in zip(predicted, topics, strict=True)) / len(topics)
    if abs(counted - students[SEEDS[0]]["accuracy"]) > 1e-6:
        problems.append(
            f"predictions.tsv is right in {counted:.1%}, not in {students[SEEDS[0]]['accuracy']:.1%}"
        )
    if problems:
        sys.exit("\n".join(["The claim does not hold:", *problems, json.dumps(results)]))

    size = students[SEEDS[0]]["parameters"]
    faster = min(one["texts_a_cpu_second"] for one in students.values()) / teacher["texts_a_cpu_second"]
    accuracies = sorted(student["accuracy"] for student in students.values())
    mean = sum(accuracies) / len(accuracies)
    summary = (
        f"without a label: the teacher has {teacher['accuracy']:.1%} of nine topics, students of ten seeds {mean:.1%} "
        f"({accuracies[0]:.1%} to {accuracies[-1]:.1%}), at least {faster:.0f} times as fast with {size:,} "
        f"parameters of {teacher['parameters']:,}"
    )
    same = {"rows": len(rows), "parameters": size, "of_teacher": teacher["parameters"]}
    shown = ["python", SCRIPT.name, "--seeds", *SEEDS, "--output_dir", "out"]
    print(json.dumps({"command": shown, "summary": summary, "same": same, "of_machine": results}))


if __name__ == "__main__":
    main()
