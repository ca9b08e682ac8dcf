"""Runs the script and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT, SEEDS, DRAWS = Path(__file__).with_name("run_speculative_decoding.py"), (0, 1, 2), "10000"
BETTER = 0.3  # the target's loss of a word is less than the draft's by this
GREEDY, SAMPLED = 1.8, 1.5  # words for each call of the target, at least
LIKELY, UNLIKELY = 1e-3, 1e-6  # the chance of what was drawn: with the target's check more, without it less


def main() -> None:
    problems, found = [], {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as place:
            command = [
                sys.executable,
                SCRIPT,
                "--draws",
                DRAWS,
                "--seed",
                str(seed),
                "--output_dir",
                f"{place}/out",
            ]
            if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
                sys.exit("The script fails.")
            found[seed] = results = json.loads(Path(place, "out/results.json").read_text())
        loss, greedy, sampled = results["loss_of_a_word"], results["greedy"], results["sampled"]
        if loss["draft"] - loss["target"] < BETTER:
            problems.append(
                f"seed {seed}: the target's loss is {loss['target']}, the draft's {loss['draft']}"
            )
        if greedy["equal_texts"] != 40:
            problems.append(f"seed {seed}: {greedy['equal_texts']} of 40 texts are the target's own")
        if sampled["equal_texts"] == 40:
            problems.append(f"seed {seed}: nothing was sampled")
        if greedy["words_a_call"] < GREEDY or sampled["words_a_call"] < SAMPLED:
            problems.append(f"seed {seed}: {greedy['words_a_call']}, {sampled['words_a_call']} words a call")
        if results["chances"]["both"] < LIKELY or results["chances"]["draft"] > UNLIKELY:
            problems.append(f"seed {seed}: chances of {results['chances']}")
    if problems:
        sys.exit("\n".join(["The claim does not hold:", *problems, json.dumps(found)]))

    def of(*keys: str, places: int = 2) -> str:
        values = []
        for value in found.values():
            for key in keys:
                value = value[key]
            values.append(f"{value:.{places}f}")
        return ", ".join(values)

    summary = (
        f"three seeds: all 40 texts the target's own with {of('greedy', 'words_a_call')} words a call, "
        f"sampled {of('sampled', 'words_a_call')}; the distribution's chance {of('chances', 'both')}, "
        f"the draft's alone below {UNLIKELY:.0e}; loss of a word {of('loss_of_a_word', 'target')} "
        f"against the draft's {of('loss_of_a_word', 'draft')}"
    )
    first = found[SEEDS[0]]
    same = {"words": first["words"], "vocabulary": first["vocabulary"], "equal_texts": [40 for _ in SEEDS]}
    shown = ["python", SCRIPT.name, "--draws", DRAWS, "--output_dir", "out"]
    print(json.dumps({"command": shown, "summary": summary, "same": same, "of_machine": {"seeds": found}}))


if __name__ == "__main__":
    main()
