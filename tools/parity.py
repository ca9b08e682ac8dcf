"""Writes the page about parity from what `pytest tests/parity --figures FILE` measured.

    python tools/parity.py build/parity/figures.jsonl build/parity/index.html [--picture docs/parity.svg]

One static file: pictures are SVG inside it, once for light screens and once for dark ones.
"""

import argparse
import html
import io
import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

Entries = list[dict[str, Any]]

COLORS = ("#3b7dd8", "#d9822b", "#2a9d6f", "#b04fc0")
DASHES = ("-", (0, (6, 2)), (0, (3, 2)), (0, (1, 1.5)))
INK = {"light": "#222222", "dark": "#dddddd"}
EXPLAINED = {
    "first loss": "relative difference of the first step's loss",
    "loss curve": "the largest relative difference in 50 steps",
    "learning rate": "the largest relative difference in 50 steps",
    "eval_loss": "the largest relative difference",
    "predictions that differ": "rows of 40",
}
STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --line: #ccc; --good: #1a7f4b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #17181a; --line: #444; --good: #5fd39a; }
  .light { display: none; }
}
@media (prefers-color-scheme: light) { .dark { display: none; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; }
svg { width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
@media (max-width: 40rem) {
  th, td { white-space: normal; padding: .3rem .4rem; font-size: .8rem; }
  h1 { font-size: 1.5rem; }
}
span { white-space: nowrap; }
.good { color: var(--good); }
.bad { color: #d33; font-weight: bold; }
"""


def curves(entries: Entries, scheme: str) -> Figure:
    """The curves of one seed over each other, and below them how far each is from the first form's."""
    ink = INK[scheme]
    matplotlib.rcParams |= {"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink}
    matplotlib.rcParams |= {"xtick.color": ink, "ytick.color": ink, "svg.fonttype": "none", "font.size": 12}
    figure = Figure(figsize=(8, 7), layout="constrained", facecolor="none")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    drawn = [entry for entry in entries if entry["what"] == "loss curve"]
    first = min(entry["seed"] for entry in drawn)
    lines = {"pytorch-trainer": next(e["reference"] for e in drawn if e["seed"] == first)}
    lines |= {entry["form"]: entry["losses"] for entry in drawn if entry["seed"] == first}
    for number, (form, losses) in enumerate(lines.items()):
        look = {"color": COLORS[number], "linestyle": DASHES[number], "linewidth": 5 - number}
        above.plot(range(1, len(losses) + 1), losses, label=form, **look)
    forms = list(lines)
    for entry in drawn:
        number = forms.index(entry["form"])
        pairs = zip(entry["losses"], entry["reference"], strict=True)
        steps = [(at, abs(ours / theirs - 1)) for at, (ours, theirs) in enumerate(pairs, start=1)]
        seen = [(at, difference) for at, difference in steps if difference]
        label = entry["form"] if entry["seed"] == first else None
        if not seen and label:
            label += " (no difference)"
        at, differences = zip(*seen, strict=True) if seen else ((), ())
        below.plot(at, differences, ".", color=COLORS[number], label=label, markersize=6)
    below.axhline(1e-4, color=ink, linewidth=1, linestyle=":")
    below.annotate("the bar, 1e-4", (1, 1.2e-4), color=ink)
    below.set(yscale="log", ylim=(1e-8, 1e-2), ylabel="relative difference", xlabel="optimizer step")
    above.set(ylabel="training loss (nats per token)")
    for axis in (above, below):
        axis.set_facecolor("none")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, labelcolor=ink, loc="upper right", ncols=3, fontsize=11)
    above.set_title("One command in every form" if len(forms) > 1 else forms[0])
    return figure


def svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def table(head: list[str], rows: list[list[str]]) -> str:
    cells = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    cells += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f'<div class="wide"><table>{"".join(f"<tr>{row}</tr>" for row in cells)}</table></div>'


def shown(found: Entries) -> str:
    """The largest of some figures, and whether all are below their bars."""
    if not found:
        return ""
    figure, good = max(e["figure"] for e in found), all(e["figure"] <= e["bar"] for e in found)
    text = "0" if not figure else f"{figure:.1e}" if figure < 0.5 else f"{figure:g}"
    return f'<span class="{"good" if good else "bad"}">{text}</span>'


def bar(found: Entries) -> str:
    """The bar of some figures: 0 or 1e-4."""
    value = found[0]["bar"] if found else 0
    return f"{value:.0e}".replace("e-0", "e-") if value else "0"


def by_form(entries: Entries) -> str:
    forms = list(dict.fromkeys(e["form"] for e in entries if e["what"] == "loss curve"))
    rows = []
    for what, meaning in EXPLAINED.items():
        own = [entry for entry in entries if entry["what"] == what]
        figures = [shown([entry for entry in own if entry["form"] == form]) for form in forms]
        rows.append([html.escape(f"{what}: {meaning}"), bar(own), *figures])
    return table(["against pytorch-trainer, three seeds", "bar", *forms], rows)


def by_pair(entries: Entries, what: str) -> str:
    own = [entry for entry in entries if entry["what"] == what]
    writers = list(dict.fromkeys(entry["form"] for entry in own))
    readers = list(dict.fromkeys(entry["reader"] for entry in own))
    rows = [
        [writer, *(shown([e for e in own if (e["form"], e["reader"]) == (writer, r)]) for r in readers)]
        for writer in sorted(writers)
    ]
    return table(["written by, then read by", *readers], rows)


def about() -> str:
    """The machine, the versions and the commit."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line),
        platform.processor(),
    )
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "datasets", "numpy"))
    return html.escape(
        f"{os.cpu_count()} x {cpu}; Python {platform.python_version()}; {versions}; "
        f"commit {git.stdout.strip() or 'unknown'}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("figures", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--picture", type=Path, help="write the light picture to this file as well")
    args = parser.parse_args()
    entries = [json.loads(line) for line in args.figures.read_text().splitlines()]
    pictures = {scheme: svg(curves(entries, scheme)) for scheme in INK}
    both = "".join(f'<div class="{scheme}">{picture}</div>' for scheme, picture in pictures.items())
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Triptych: parity</title><style>{STYLE}</style></head><body>
<h1>One command, the same run</h1>
<p>Summarization with a small trained T5, float32, without dropout: 50 steps of two batches of 8 rows, the
last of each epoch partial, with warm-up, decay and clipping. The same flags to every script.</p>
{both}
<h2>How far from the first form</h2>
{by_form(entries)}
<h2>Models: written by one, evaluated by another</h2>
<p>Relative difference of <code>eval_loss</code>; the bar is 1e-5.</p>
{by_pair(entries, "model loaded")}
<h2>Runs: stopped half-way in one form, continued in another</h2>
<p>The largest relative difference to the curve that was never stopped; the bar is 1e-4.</p>
{by_pair(entries, "run continued")}
<p><small>{about()}</small></p>
</body></html>
"""
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(page, encoding="utf-8")
    if args.picture:
        args.picture.write_text(pictures["light"] + "\n", encoding="utf-8")
    print(f"Written: {args.page}")


if __name__ == "__main__":
    main()
