"""The table and the pictures of what bench.py measured."""

import statistics
from collections.abc import Iterable
from typing import Any

import decoders
import matplotlib
import vision
from matplotlib.figure import Figure
from running import BUILD

matplotlib.rcParams["svg.hashsalt"] = "triptych"  # the same picture gives the same file
FRAMEWORK = {
    "PyTorch, Trainer": "pytorch",
    "PyTorch, Accelerate": "pytorch",
    "TensorFlow": "tensorflow",
    "JAX": "flax",
}


def median(values: Iterable[float], text: str = "{:.3g}") -> str:
    """A median, with the least and the most of more than one value."""
    values = sorted(values)
    found = text.format(statistics.median(values))
    if len(values) == 1:
        return found
    return f"{found} ({text.format(values[0])}-{text.format(values[-1])})"


def ratios(ours: list[dict], theirs: list[dict], name: str) -> list[float]:
    """Of each repetition: their figure by ours."""
    return [other[name] / own[name] for own, other in zip(ours, theirs, strict=True)]


def table(heading: list[str], rows: list[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def training(results: dict[str, Any], shape: str, work: float) -> str:
    """Of each form: its speed, how many times that is the plain way's, and what part of the machine's."""
    found, rows = results[f"training, {shape}"], []
    for name, ours in found.items():
        form, _, kind = name.rpartition(", ")
        if not form:
            continue
        framework = FRAMEWORK[form]
        plain, limit = found[f"plain {framework}"], results["limits"][framework][0][kind]
        rows.append(
            [
                name,
                median((each["tokens"] / each["epoch"] for each in ours), "{:.0f}"),
                median(ratios(ours, plain, "epoch"), "{:.2f}"),
                median((100 * work / each["epoch"] / limit for each in ours), "{:.0f}%"),
                median(ratios(ours, plain, "evaluation"), "{:.2f}"),
                median((1 / each for each in ratios(ours, plain, "memory")), "{:.2f}"),
                median(each["memory"] for each in ours),
                median(each["saving"] for each in ours),
            ]
        )
    heading = [
        "",
        "useful tokens/s",
        "times plain",
        "of the limit",
        "evaluation, times plain",
        "memory, of plain's",
    ]
    return table([*heading, "memory, GB", "saving, s"], rows)


def beside_stock(found: dict[str, Any]) -> str:
    """Of each form of ours: its time and memory by the stock Trainer's of the same repetition; of a step the
    median over steps, which for the rows in random order are the same batches."""
    rows = []
    for name, ours in found.items():
        if name != "stock":
            steps = [
                statistics.median(a / b for a, b in zip(own["steps"], other["steps"], strict=True))
                for own, other in zip(ours, found["stock"], strict=True)
            ]
            shares = (
                [1 / each for each in ratios(ours, found["stock"], figure)]
                for figure in ("epoch", "evaluation", "memory")
            )
            same_batches = "--group_by_length" not in name
            rows.append(
                [
                    name,
                    median(steps, "{:.2f}") if same_batches else "other batches",
                    *(median(share, "{:.2f}") for share in shares),
                ]
            )
    heading = ["", "a step, of stock's time", "an epoch", "evaluation", "memory, of stock's"]
    return table(heading, rows)


def true_shapes(results: dict[str, Any], part: str, unit: str, work: float) -> str:
    """Of each form: its speed, what part of the machine's and of the stock Trainer's, memory, and how far
    the losses of its steps are from the Trainer form's.

    Args:
        work: floating-point operations of training on a unit.
    """
    found, rows = results[part], []
    for name, ours in found.items():
        limit = results["limits"][FRAMEWORK.get(name, "pytorch")][0]["float32"]
        row = [name, median(each["a second"] for each in ours)]
        row += [median((100 * work * each["a second"] / limit for each in ours), "{:.0f}%")]
        for figure in ("a second", "memory"):
            shares = [1 / each for each in ratios(ours, found["stock"], figure)] if "stock" in found else []
            row += [median(shares, "{:.2f}") if shares else ""]
        first = found.get("PyTorch, Trainer", ours)[0]["losses"]
        pairs = zip(ours[0]["losses"], first, strict=True)
        comparable = name != "stock" or unit == "images"  # its rows of texts are cut otherwise
        difference = "" if not comparable else f"{max(abs(a / b - 1) for a, b in pairs):.1e}"
        rows.append([*row, median(each["memory"] for each in ours), difference])
    names = [f"{unit}/s", "of the limit", "speed, of stock's", "memory, of stock's", "memory, GB"]
    return table(["", *names, "largest difference of a loss"], rows)


def waiting(found: dict[str, Any]) -> str:
    """Of each form and number of cores: images a second, by the threads or processes that decode ahead."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, figures in found.items():
        form, cores, _ = name.rsplit(", ", 2)
        speed = median((each["a second"] for each in figures), "{:.0f}")
        rows.setdefault((form, cores), [f"{form}, {cores} core{'s' * (cores != '1')}"]).append(speed)
    names = [f"{workers} workers" for workers in vision.WORKERS]
    return table(["", *names, "nothing to decode"], list(rows.values()))


def packing(found: dict[str, Any]) -> str:
    """Of each form and way: useful tokens a second, and times by those of padded rows."""
    rows = []
    for name, own in found.items():
        padded = found[f"{name.rpartition(', ')[0]}, padded"]
        rows.append([name, median((each["tokens"] / each["epoch"] for each in own), "{:.0f}")])
        for figure in ("epoch", "evaluation", "memory"):
            rows[-1].append(median((1 / each for each in ratios(own, padded, figure)), "{:.2f}"))
        rows[-1].append(median((each["loss"] for each in own), "{:.4f}"))
    return table(["", "useful tokens/s", "an epoch, of padded's", "evaluation", "memory", "eval_loss"], rows)


def start(results: dict[str, Any]) -> str:
    names = ("-h", "wrong arguments", "to the first batch", "indispensable")
    rows = []
    for form, found in results["start"].items():
        ratio = [each["to the first batch"] / each["indispensable"] for each in found]
        own = [median((each[name] for each in found), "{:.2f}") for name in names]
        rows.append([form, *own, median(ratio, "{:.2f}")])
    return table(["", *(f"{name}, s" for name in names), "ratio"], rows)


def preprocessing(results: dict[str, Any]) -> str:
    rows = []
    for framework, found in results["preprocessing"].items():
        for count in found[0]:
            seconds = [each[count]["seconds"] for each in found]
            memory = [each[count]["MB above the rows"] for each in found]
            per_second = median((int(count) / each for each in seconds), "{:.0f}")
            rows.append([framework, count, median(seconds, "{:.2f}"), per_second, median(memory, "{:.0f}")])
    return table(["", "rows", "seconds", "rows/s", "memory above the rows, MB"], rows)


def write(results: dict[str, Any], work: dict[str, float]) -> None:
    """build/bench/table.md, ratios.svg and growth.svg.

    Args:
        work: by shape, the floating-point operations of an epoch.
    """
    parts = [f"{results['machine']}\n\n{results['versions']}\n"]
    for part, found in results.items():
        if part.startswith("stock, "):
            parts += [f"Beside the stock Trainer, {part[7:]}\n\n{beside_stock(found)}"]
    if "limits" in results:
        names = {"float32": 1e9, "bfloat16": 1e9, "copy": 1e9}
        rows = [
            [framework, *(f"{found[0][name] / unit:.0f}" for name, unit in names.items())]
            for framework, found in results["limits"].items()
        ]
        parts += [table(["limits", "float32, GFLOP/s", "bfloat16, GFLOP/s", "copying, GB/s"], rows)]
    for shape in work:
        if f"training, {shape}" in results:
            parts += [f"Training and evaluation, {shape}\n\n{training(results, shape, work[shape])}"]
    if "start" in results:
        parts += [f"Start\n\n{start(results)}"]
    if "preprocessing" in results:
        parts += [f"Preprocessing\n\n{preprocessing(results)}"]
        growth(results)
    if {"JAX", "plain flax"} <= results.get("again", {}).keys():
        times = ratios(results["again"]["JAX"], results["again"]["plain flax"], "evaluation")
        parts += [
            f"JAX, small, a second evaluation in the same process: {median(times, '{:.2f}')} times plain.\n"
        ]
    if {"JAX", "plain flax"} <= results.get("long", {}).keys():
        (ours,), (plain,) = results["long"]["JAX"], results["long"]["plain flax"]
        cold = f"{ours['all']:.0f} s with all compiling, the plain way {plain['all']:.0f} s: "
        parts += [f"JAX, 2,000 rows, small: {cold}{plain['all'] / ours['all']:.2f} times as fast.\n"]
    if "loss" in results:
        rows = [[name, f"{found[0]['loss']:.4f}"] for name, found in results["loss"].items()]
        parts += [f"Loss of 200 other rows after 480\n\n{table(['', 'eval_loss'], rows)}"]
    for part in results:
        if part.startswith("decoders, "):
            shape = part[10:]
            work_of_token = decoders.operations(shape, decoders.BLOCK[shape])
            found = true_shapes(results, part, "tokens", work_of_token)
            parts += [f"{shape}'s true shape\n\n{found}"]
    if "pictures, ViT-base" in results:
        found = true_shapes(results, "pictures, ViT-base", "images", vision.operations("ViT-base"))
        parts += [f"ViT-base's true shape\n\n{found}"]
    if "waiting" in results:
        parts += [f"Images a second, by cores and workers\n\n{waiting(results['waiting'])}"]
    if "packing" in results:
        parts += [f"Packed rows and padded ones\n\n{packing(results['packing'])}"]
    if "grouping" in results:
        names = ("eval_loss", "eval_rouge1", "eval_rouge2", "train_runtime")
        rows = [
            [job, *(f"{found[0][name]:.4g}" for name in names)] for job, found in results["grouping"].items()
        ]
        parts += [f"The demo, three seeds\n\n{table(['flag, seed', *names], rows)}"]
    (BUILD / "table.md").write_text("\n".join(parts))
    if "training, t5-small" in results:
        pictured(results)
    print((BUILD / "table.md").read_text())


def pictured(results: dict[str, Any]) -> None:
    """How many times as fast as the plain way each form trains and evaluates."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    names, quantities = [], {"training": "epoch", "evaluation with generation": "evaluation"}
    found = results["training, t5-small"]
    names = [name for name in found if not name.startswith("plain")]
    for place, (label, quantity) in enumerate(quantities.items()):
        values = [
            ratios(found[name], found[f"plain {FRAMEWORK[name.rpartition(', ')[0]]}"], quantity)
            for name in names
        ]
        middles = [statistics.median(each) for each in values]
        spread = [
            [middle - min(each) for middle, each in zip(middles, values, strict=True)],
            [max(each) - middle for middle, each in zip(middles, values, strict=True)],
        ]
        where = [number + 0.4 * place for number in range(len(names))]
        bars = axes.barh(where, middles, 0.38, xerr=spread, label=label, color=("#3b7dd8", "#d9822b")[place])
        axes.bar_label(bars, fmt="%.1f", padding=4, fontsize=8)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.margins(x=0.08)
    axes.set_yticks([number + 0.2 for number in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the plain way in the same framework, t5-small's shape")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(BUILD / "ratios.svg", metadata={"Date": None})


def growth(results: dict[str, Any]) -> None:
    """How long preprocessing takes, and what memory, by the number of rows."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for framework, found in results["preprocessing"].items():
        counts = list(map(int, found[0]))
        for axes, name in zip(panels, ("seconds", "MB above the rows"), strict=True):
            values = [statistics.median(each[str(count)][name] for each in found) for count in counts]
            axes.plot(counts, values, marker="o", label=framework)
            axes.set_xticks(counts)
    for axes, name in zip(panels, ("seconds", "MB above the rows"), strict=True):
        axes.set_xlabel("rows")
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(BUILD / "growth.svg", metadata={"Date": None})
