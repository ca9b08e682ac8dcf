"""Tests the scripts on a GPU, with the libraries installed there and without a network: `make test-gpu`.

    python tests/gpu/run.py [--device cpu] [--parts checks,speed] [--forms pytorch-trainer,flax]

It takes the interpreters of TRIPTYCH_PYTORCH_PYTHON and TRIPTYCH_FLAX_PYTHON, or the one that runs it, and
needs no other package than the scripts do. With every task in PyTorch (Trainer, Accelerate) and JAX it makes

    checks  tiny models on tiny samples: the curve in float32 against the processor's; bfloat16; float16, with
            its loss scale or refused; killed after a checkpoint and continued, to the same bits
    speed   t5-small's and BERT-base's true shapes with random weights: useful tokens per second and memory,
            in float32 and bfloat16, beside the stock Trainer of transformers, and as a share of what the card
            does in a product of matrices, or holds

Tables are printed, and figures.json is written into build/gpu (--out). Exit code 0: all that could be tested
is as it should be; 1: something is not, or the time (--minutes) was over; 2: nothing can be tested. What is
skipped stands at the end, with the reason. `--device cpu` goes the same ways on a processor, with smaller
shapes: it tries the program, and its figures of speed mean nothing.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checks import TASKS, Check, Form, check_all
from machine import ROOT, Failure, Machine, say
from speed import SMALL, TRUE, Bench, Speed, measure_limits

sys.path.append(str(ROOT / "tools"))

import manifest

FRAMEWORKS = ("pytorch", "flax")
PARTS = ("checks", "speed")
MINUTES = {"gpu": 8.0, "cpu": 60.0}
OUT = {"gpu": "build/gpu", "cpu": "build/gpu-cpu"}  # so that a trial replaces no figures of a card
CHECKS = ("float32", "bfloat16", "float16", "continued", "continued, float16")
SPEED = (
    *("shape, precision", "form", "useful tokens/s", "times stock", "of the limit"),
    *("memory, GB", "of stock's", "of the card's"),
)


@dataclass
class Figures:
    """What was measured: operations a second by precision are the `limits`."""

    checks: list[Check] = field(default_factory=list)
    speed: list[Speed] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def parse(words: list[str]) -> argparse.Namespace:
    """The options."""
    tasks = [task for task in manifest.tasks(ROOT) if task in TASKS]
    all_forms = manifest.scripts(ROOT).items()
    names = dict.fromkeys(form for path, form in all_forms if framework_of(path) in FRAMEWORKS)

    def some_of(known: Any) -> Any:
        def values(text: str) -> list[str]:
            found = text.split(",")
            if unknown := set(found) - set(known):
                raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))}; {', '.join(known)}")
            return found

        return values

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--parts", type=some_of(PARTS), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--forms", type=some_of(names), default=list(names), help=",".join(names))
    parser.add_argument("--tasks", type=some_of(tasks), default=list(tasks), help=",".join(tasks))
    parser.add_argument("--out", type=Path, help=f"folder for all that is made (default: {OUT['gpu']})")
    parser.add_argument("--minutes", type=float, help=f"for everything (default: {MINUTES['gpu']:g})")
    help_workers = "scripts that are checked side by side (default: one for each core but one, at most six)"
    workers = max(1, min(6, (os.cpu_count() or 1) - 1))
    parser.add_argument("--workers", type=int, default=workers, help=help_workers)
    args = parser.parse_args(words)
    args.minutes = args.minutes or MINUTES[args.device]
    args.out = args.out or ROOT / OUT[args.device]
    return args


def framework_of(script: str) -> str:
    """That of a script in the manifest."""
    return Path(script).parts[1]


def scripts(machine: Machine, names: list[str], tasks: list[str]) -> list[Form]:
    """The scripts of the manifest that can be tested."""
    found = []
    for task, settings in manifest.tasks(ROOT).items():
        for name, path in settings["scripts"].items():
            framework = machine.frameworks.get(framework_of(path))
            if task in tasks and name in names and framework and not framework.lacks[task]:
                found.append(Form(task, name, ROOT / path, settings["predictions"], framework))
    return found


def make_samples(machine: Machine, name: str, *options: str, vocabulary: int) -> Path:
    """A dataset of `triptych.samples`, and a tokenizer of its texts."""
    folder = machine.folder / name
    python = next(iter(machine.frameworks.values())).python
    samples = [python, "-m", "triptych.samples"]
    machine.call([*samples, name, folder, *options], machine.folder, on_device=False)
    text = ["--files", folder / "train.jsonl", "--vocab_size", vocabulary]
    text += ["--mask_token", "--extra_ids", "60"]  # for texts with holes
    machine.call([*samples, "tokenizer", folder / "tokenizer", *text], machine.folder, on_device=False)
    pictures = Path(__file__).parents[1] / "fixtures/with_digits.py"
    machine.call([python, pictures, folder], machine.folder, on_device=False)
    return folder


def table(heading: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown, its columns aligned."""
    lines = [list(heading), *rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in lines
    )


def table_of_checks(checks: list[Check]) -> str:
    """A row a form; what failed is told below it."""
    by_form: dict[str, dict[str, str]] = {}
    for check in checks:
        said = check.said if check.verdict == "ok" else check.verdict.upper()
        by_form.setdefault(check.form, {})[check.what] = said
    rows = [[form, *(found.get(what, "") for what in CHECKS)] for form, found in by_form.items()]
    return table(("task, form", *CHECKS), rows)


def table_of_speed(speeds: list[Speed]) -> str:
    def shown(value: float | None, style: str) -> str:
        return "" if value is None else format(value, style)

    rows = [
        [
            f"{one.shape}, {one.precision}",
            one.form,
            shown(one.tokens, ",.0f"),
            shown(one.times_stock, ".2f"),
            shown(one.of_limit, ".1%"),
            shown(one.memory / 1e9, ".2f"),
            shown(one.of_stock, ".2f"),
            shown(one.of_card, ".1%"),
        ]
        for one in speeds
    ]
    return table(SPEED, rows)


def measure(machine: Machine, args: argparse.Namespace, forms: list[Form]) -> Figures:
    """Does all that was asked for, as far as it can be done."""
    figures = Figures()
    try:
        if "checks" in args.parts:
            say(f"Checks, {args.workers} scripts side by side")
            columns = ["text", "summary", "topic", "entities", "translation", "question", "answers"]
            columns += ["choices", "choice"]
            options = ("--rows", "600", "--columns", *columns)
            samples = make_samples(machine, "bulletins", *options, vocabulary=800)
            figures.checks = check_all(machine, forms, samples, args.workers)
        if "speed" in args.parts:
            say("Speed")
            data = make_samples(machine, "docstrings", vocabulary=8000 if args.device == "gpu" else 1500)
            figures.limits = measure_limits(machine)
            for shape in TRUE if args.device == "gpu" else SMALL:
                of_task = [form for form in forms if form.task == shape.task]
                if of_task:
                    found, problems = Bench(machine, shape, data, figures.limits).all(of_task)
                    figures.speed += found
                    figures.problems += problems
    except Failure as error:
        figures.problems.append(str(error))
    wrong = [one for one in figures.checks if one.verdict != "ok"]
    figures.problems[:0] = [f"{one.form}, {one.what}: {one.said}" for one in wrong]
    return figures


def report(figures: Figures, skipped: list[str]) -> None:
    """Prints what was found."""
    if figures.checks:
        print(f"\n{table_of_checks(figures.checks)}")
    if figures.speed:
        limits = [f"{name} {value / 1e12:.3g} TFLOP/s" for name, value in figures.limits.items()]
        print(f"\n{table_of_speed(figures.speed)}")
        print(f"The limit, by a product of matrices, without TensorFloat-32: {', '.join(limits)}")
    for heading, lines in (("Skipped", skipped), ("Not as it should be", figures.problems)):
        if lines:
            print(f"\n{heading}:", *(f"- {line}" for line in lines), sep="\n")


def main() -> int:
    args = parse(sys.argv[1:])
    machine = Machine(args.device, 60 * args.minutes, args.out.resolve())
    asked = {framework_of(path) for path, form in manifest.scripts(ROOT).items() if form in args.forms}
    if "speed" in args.parts:
        asked.add("pytorch")  # has the stock Trainer, beside which all are measured
    machine.find([framework for framework in FRAMEWORKS if framework in asked], args.tasks)
    forms = scripts(machine, args.forms, args.tasks)
    if not forms:
        hint = " `--device cpu` goes the same ways on the processor." if args.device == "gpu" else ""
        say(f"Nothing can be tested. {'; '.join(machine.skipped)}.{hint}")
        return 2
    missing = [task for task in manifest.tasks(ROOT) if task not in TASKS]
    machine.skipped += [f"{task}: checks.py has no tiny model for it" for task in missing]
    machine.folder.mkdir(parents=True, exist_ok=True)
    path = machine.folder / "figures.json"
    path.unlink(missing_ok=True)
    about: dict[str, Any] = {"device": args.device, "frameworks": {}}
    for framework in machine.frameworks.values():
        device = framework.about["card" if args.device == "gpu" else "processor"]
        versions = ", ".join(f"{name} {version}" for name, version in framework.about["versions"].items())
        say(f"{framework.name}: {device['name']}; {versions}")
        about["frameworks"][framework.name] = {"device": device, "versions": framework.about["versions"]}

    figures = measure(machine, args, forms)
    about |= asdict(figures) | {"skipped": machine.skipped, "seconds": time.monotonic() - machine.began}
    path.write_text(json.dumps(about, indent=1) + "\n")
    report(figures, machine.skipped)
    print(f"\n{about['seconds']:.0f} s; all figures are in {os.path.relpath(path)}")
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
