"""Measures what a user waits for; writes build/bench/: results.json, table.md, ratios.svg, growth.svg.

    python benchmarks/bench.py [--repetitions 3] [--cores 0] [--frameworks pytorch,flax] [--parts start,loss]

Every figure is a ratio within one run: of our scripts to the plain way (plain_*.py), or to what no run can do
without (essentials.py). Each process has one core, and the GPU if there is one. README.md explains.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import decoders
import report
import vision
from running import BUILD, HERE, ROOT, Figures, Run, on_cores, python

FORMS = {
    "PyTorch, Trainer": "pytorch/summarization/run_summarization.py",
    "PyTorch, Accelerate": "pytorch/summarization/run_summarization_no_trainer.py",
    "TensorFlow": "tensorflow/summarization/run_summarization.py",
    "JAX": "flax/summarization/run_summarization.py",
}
# Sizes of the model; rows of an epoch and of an evaluation; steps that the plain way is measured for
SHAPES: dict[str, dict[str, Any]] = {
    "small": {"d_model": 256, "d_ff": 1024, "num_layers": 4, "num_heads": 8, "d_kv": 32},
    "t5-small": {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "d_kv": 64},
}
ROWS = {"small": (480, 200), "t5-small": (240, 40)}
PLAIN_STEPS = {"small": 8, "t5-small": 4}
SOURCE, TARGET, BATCH, VOCABULARY = 512, 32, 8, 32_128
GROWTH = (1_000, 4_000, 16_000)
# Beside the stock Trainer at its defaults: the folder of the model, rows of an epoch and of an evaluation
STOCK: dict[str, tuple[str, int, int]] = {
    "summarization": ("small", 240, 100),
    "text-classification": ("bert", 800, 1_000),
}
LONG = 2_000  # rows of a whole run with all its compiling
# What a user gives who wants speed: as many tokens at once as a quarter of a batch of the plain way
FAST = ("--group_by_length", "--max_tokens_per_batch", 1024, "--per_device_eval_batch_size", 32)
PRECISIONS: dict[str, tuple] = {"float32": (), "bfloat16": ("--bf16",)}
PARTS = (
    "stock",
    "start",
    "preprocessing",
    "training",
    "again",
    "long",
    "loss",
    "grouping",
    "decoders",
    "packing",
    "pictures",
    "waiting",
)
MAKE_MODEL = """
import json, sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
start = tokenizer.pad_token_id
config = transformers.T5Config(**json.loads(sys.argv[3]), decoder_start_token_id=start)
torch.manual_seed(1)
transformers.T5ForConditionalGeneration(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""
MAKE_CLASSIFIER = """
import json, sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
names = sorted({json.loads(line)["topic"] for line in open(sys.argv[3])})
labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
tokens = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
config = transformers.BertConfig(**sizes, **labels, **tokens)
torch.manual_seed(1)
transformers.BertForSequenceClassification(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""
COUNT_TOKENS = """
import json, sys, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
for row in map(json.loads, open(sys.argv[2])):
    print(len(tokenizer(row["text"])["input_ids"]), len(tokenizer(row["summary"])["input_ids"]))
"""


def prepare() -> None:
    """Docstrings of the standard library, a tokenizer of them, their lengths, and random models."""

    if (BUILD / "bert/config.json").exists():
        return
    train = BUILD / "data/train.jsonl"
    python("-m", "triptych.samples", "docstrings", BUILD / "data")
    python("-m", "triptych.samples", "tokenizer", BUILD / "tokenizer", "--files", train, "--vocab_size", 8000)
    (BUILD / "lengths.txt").write_text(python("-c", COUNT_TOKENS, BUILD / "tokenizer", train))
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    for count in GROWTH:
        with (BUILD / f"{count}.jsonl").open("w") as file:
            for number, row in zip(range(count), itertools.cycle(rows), strict=False):
                file.write(json.dumps(row | {"text": f"{number}: {row['text']}"}) + "\n")
    for name, shape in SHAPES.items():
        python("-c", MAKE_MODEL, BUILD / "tokenizer", BUILD / name, json.dumps(shape))
    topics = BUILD / "bulletins/train.jsonl"
    python("-m", "triptych.samples", "bulletins", BUILD / "bulletins", "--rows", 4_000)
    python("-c", MAKE_CLASSIFIER, BUILD / "tokenizer", BUILD / "bert", topics)


def operations(shape: str, rows: int) -> float:
    """Floating-point operations of training on the first rows, by the sizes of the matrices: a product of
    [m, k] and [k, n] counts 2mkn, the backward pass twice. Padding, norms, softmax and optimizer do not."""
    sizes, total = SHAPES[shape], 0.0
    width, inner, wide = sizes["d_model"], sizes["num_heads"] * sizes["d_kv"], sizes["d_ff"]
    for line in (BUILD / "lengths.txt").read_text().splitlines()[:rows]:
        source, target = map(min, map(int, line.split()), (SOURCE, TARGET))
        layer = source * (8 * width * inner + 4 * width * wide + 4 * source * inner)  # of the encoder
        layer += target * (8 * width * inner + 4 * width * wide + 4 * target * inner)
        layer += source * 4 * width * inner + target * (4 * width * inner + 4 * source * inner)
        total += 3 * (sizes["num_layers"] * layer + 2 * target * width * VOCABULARY)
    return total


def words_for(shape: str, rows: int, eval_rows: int, *others: Any) -> list[Any]:
    settings = {
        "model_name_or_path": BUILD / shape,
        "train_file": BUILD / "data/train.jsonl",
        "validation_file": BUILD / "data/validation.jsonl",
        "max_source_length": SOURCE,
        "max_target_length": TARGET,
        "max_train_samples": rows,
        "max_eval_samples": eval_rows,
        "save_strategy": "no",
        "output_dir": "out",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return [*words, "--do_train", "--do_eval", "--predict_with_generate", *others]


def cache(name: str) -> dict[str, str]:
    return {"JAX_COMPILATION_CACHE_DIR": str(BUILD / "compiled" / name)} if name else {}


def train(
    core: int, form: str, shape: str, rows: int, epochs: int = 2, others: tuple = (), compiled: str = ""
) -> Figures:
    """One of our scripts. "epoch" is the last one's time: of two, the second needs no more compiling.

    Args:
        compiled: where JAX keeps what it compiled for the next repetition; nowhere by default.
    """
    framework = FORMS[form].partition("/")[0]
    words = words_for(shape, rows, ROWS[shape][1], *FAST, "--num_train_epochs", epochs, *others)
    name = f"{form}, {shape}, {rows} {''.join(map(str, others))}"
    command = (HERE / "watch.py", ROOT / "examples" / FORMS[form], *words)
    run = Run(core, framework, *command, name=name, **cache(compiled))
    steps, (first,) = [run.at("first batch")[0], *run.at("step")], run.at("first batch")
    evaluated = json.loads((run.folder / "out/eval_results.json").read_text())
    return {
        "epoch": steps[-1] - steps[(len(steps) - 1) * (epochs - 1) // epochs],
        "all": steps[-1] - first,
        "evaluation": evaluated["eval_runtime"],
        "loss": evaluated["eval_loss"],
        "memory": run.memory,
        "saving": max(run.values("saved", "seconds")),
        "tokens": sum(run.values("step", "tokens")) / epochs,
    }


def train_plainly(
    core: int, framework: str, shape: str, rows: int, steps: int, others: tuple = (), compiled: str = ""
) -> Figures:
    """The plain way for some steps. All take the same time, whatever their rows, and give an epoch's."""
    words = [
        *("--model", BUILD / shape, "--train", BUILD / "data/train.jsonl", "--epochs", 1),
        *("--validation", BUILD / "data/validation.jsonl", "--output_dir", "out"),
        *("--train_rows", steps * BATCH, "--eval_rows", ROWS[shape][1], *others),
    ]
    name = f"plain {framework}, {shape}, {steps}"
    run = Run(core, framework, HERE / f"plain_{framework}.py", *words, name=name, **cache(compiled))
    ends, (began,) = run.at("step"), run.at("first batch")
    step = statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))
    return {
        "epoch": step * rows / BATCH,
        "all": ends[0] - began + step * (rows / BATCH - 1),
        "evaluation": run.at("evaluation ends")[-1] - run.at("evaluation begins")[-1],
        "loss": run.values("evaluation ends", "loss")[0],
        "memory": run.memory,
        "saving": run.at("save ends")[0] - run.at("save begins")[0],
    }


def beside_stock(core: int, task: str, who: str) -> Figures:
    """An epoch and an evaluation at equal batches and defaults, of the stock Trainer or of a script of ours.

    Args:
        who: "stock", or our form and flags beside the defaults.
    """
    folder, rows, eval_rows = STOCK[task]
    data = BUILD / ("data" if task == "summarization" else "bulletins")
    length = SOURCE if task == "summarization" else 128
    files = data / "train.jsonl", data / "validation.jsonl"
    if who == "stock":
        words: list[Any] = [HERE / "stock_trainer.py", "--task", task, "--model", BUILD / folder]
        words += ["--train", files[0], "--validation", files[1], "--train_rows", rows, "--epochs", 1]
        words += ["--eval_rows", eval_rows, "--max_length", length, "--output_dir", "out"]
    else:
        form, *flags = who.split(" ")
        stem = "run_summarization" if task == "summarization" else "run_classification"
        script = f"{stem}.py" if form == "Trainer" else f"{stem}_no_trainer.py"
        words = [HERE / "watch.py", ROOT / "examples/pytorch" / task / script]
        words += [
            "--model_name_or_path",
            BUILD / folder,
            "--train_file",
            files[0],
            "--validation_file",
            files[1],
        ]
        words += ["--max_train_samples", rows, "--max_eval_samples", eval_rows, "--num_train_epochs", 1]
        words += ["--do_train", "--do_eval", "--save_strategy", "no", "--output_dir", "out", *flags]
        if task == "summarization":
            words += ["--max_source_length", length, "--max_target_length", TARGET, "--predict_with_generate"]
    run = Run(core, "pytorch", *words, name=f"stock {task} {who}")
    steps = run.at("step")
    if who == "stock":
        evaluation = run.at("evaluation ends")[-1] - run.at("evaluation begins")[-1]
    else:
        evaluation = json.loads((run.folder / "out/eval_results.json").read_text())["eval_runtime"]
    # The first step has in it what is set up on the way.
    each = [after - before for before, after in itertools.pairwise(steps)]
    return {"epoch": sum(each), "steps": each, "evaluation": evaluation, "memory": run.memory}


def evaluate_again(core: int) -> Figures:
    """JAX's second evaluation in one process, when all is traced and compiled."""
    validation, rows = BUILD / "data/validation.jsonl", ROWS["small"][1]
    words = words_for("small", BATCH, rows, *FAST, "--max_steps", 1)
    words += ["--do_predict", "--test_file", validation, "--max_predict_samples", rows]
    run = Run(core, "flax", ROOT / "examples" / FORMS["JAX"], *words, name="again JAX")
    predicted = json.loads((run.folder / "out/predict_results.json").read_text())
    return {"evaluation": predicted["predict_runtime"]}


def learn(core: int, seed: int, flag: str) -> Figures:
    """What the demo's model has learned, by all rows of the validation, and how long its training took."""
    words = ("--output_dir", "out", "--seed", seed, flag, "--max_eval_samples", 2_000)
    run = Run(core, "pytorch", ROOT / "examples/demo.py", *words, name=f"demo {flag} {seed}")
    found = json.loads((run.folder / "out/model/all_results.json").read_text())
    return {name: found[name] for name in ("eval_loss", "eval_rouge1", "eval_rouge2", "train_runtime")}


def limits(core: int, framework: str) -> Figures:
    run = Run(core, framework, HERE / "limits.py", framework, name=f"limits {framework}")
    return json.loads(run.text.splitlines()[-1])


def start(core: int, form: str) -> Figures:
    """Seconds of -h, of wrong arguments, of a start to the first batch, and of what none can do without."""
    framework, script = FORMS[form].partition("/")[0], ROOT / "examples" / FORMS[form]
    words = words_for("t5-small", BATCH, BATCH, "--max_steps", 1)
    whole = Run(core, framework, HERE / "watch.py", script, *words, name=f"start {form}")
    needed = Run(
        core, framework, HERE / "essentials.py", framework, BUILD / "t5-small", name=f"needed {form}"
    )
    return {
        "-h": Run(core, framework, script, "-h", name=f"help {form}").seconds,
        "wrong arguments": Run(core, framework, script, "--wrong", name=f"wrong {form}", expect=2).seconds,
        "to the first batch": whole.at("first batch")[0],
        "indispensable": needed.at("first batch")[0],
    }


def preprocess(core: int, framework: str) -> Figures:
    """By the number of rows: seconds, and MB above the file's."""
    form = next(form for form, script in FORMS.items() if script.startswith(framework))
    found = {}
    for rows in GROWTH:
        file = BUILD / f"{rows}.jsonl"
        words = (HERE / "preprocess.py", ROOT / "examples" / FORMS[form], file, BUILD / "tokenizer")
        run = Run(core, framework, *words, name=f"preprocess {framework} {rows}")
        seconds, memory = json.loads(run.text.splitlines()[-1])
        found[str(rows)] = {"seconds": seconds, "MB above the rows": memory - file.stat().st_size / 1e6}
    return found


def machine(cores: list[int]) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = (names or [platform.processor()])[0]
    return {"processor": processor, "cores": os.cpu_count(), "processes side by side": len(cores)}


def versions(framework: str) -> dict[str, str]:
    (folder,) = (ROOT / ".venv" / framework / "lib").glob("python3*/site-packages")
    wanted = {"torch", "transformers", "tensorflow", "keras", "keras-hub", "jax", "flax", "optax", "datasets"}
    found = {each.name: each.version for each in metadata.distributions(path=[str(folder)])}
    return {name: found[name] for name in sorted(wanted & found.keys())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cores", type=lambda text: [int(core) for core in text.split(",")], default=[0])
    parser.add_argument(
        "--frameworks", type=lambda text: text.split(","), default=["pytorch", "tensorflow", "flax"]
    )
    parser.add_argument("--parts", type=lambda text: text.split(","), default=PARTS, help=", ".join(PARTS))
    options = parser.parse_args()
    prepare()
    path = BUILD / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results["machine"] = machine(options.cores)
    results["versions"] = results.get("versions", {}) | {name: versions(name) for name in options.frameworks}
    forms = {form: script.partition("/")[0] for form, script in FORMS.items()}
    forms = {form: framework for form, framework in forms.items() if framework in options.frameworks}

    def measure(part: str, jobs: dict[str, Callable[[int], Figures]], repetitions: int = 1) -> None:
        """Adds figures, one a repetition, to those that the results have of each job, in place of older."""
        if part.split(",")[0] not in (*options.parts, "limits"):
            return
        found = results.setdefault(part, {})
        for number in range(repetitions):
            for name, figures in on_cores(options.cores, jobs).items():
                found[name] = [*(found[name] if number else []), figures]
            path.write_text(json.dumps(results, indent=1))

    if "pytorch" in options.frameworks:
        who = ("stock", "Trainer", "Accelerate", "Trainer --group_by_length", "Accelerate --group_by_length")
        for task in STOCK:
            jobs = {each: partial(beside_stock, task=task, who=each) for each in who}
            measure(f"stock, {task}", jobs, options.repetitions)
    measure("limits", {framework: partial(limits, framework=framework) for framework in options.frameworks})
    measure("start", {form: partial(start, form=form) for form in forms}, options.repetitions)
    jobs = {framework: partial(preprocess, framework=framework) for framework in options.frameworks}
    measure("preprocessing", jobs, options.repetitions)
    for shape, (rows, _) in ROWS.items():
        jobs, work = {}, {"shape": shape, "rows": rows}
        for framework in options.frameworks:
            name = f"plain {framework}"
            plain = partial(train_plainly, framework=framework, steps=PLAIN_STEPS[shape], **work)
            jobs[name] = partial(plain, compiled=f"{name} {shape}")
        for form, (kind, others) in itertools.product(forms, PRECISIONS.items()):
            name = f"{form}, {kind}"
            jobs[name] = partial(train, form=form, others=others, compiled=f"{name} {shape}", **work)
        measure(f"training, {shape}", jobs, options.repetitions)
    if "flax" in options.frameworks:
        work = {"shape": "small", "rows": 2 * BATCH, "steps": 2, "others": ("--evaluations", 2)}
        plain = partial(train_plainly, framework="flax", **work)
        measure("again", {"plain flax": plain, "JAX": evaluate_again}, options.repetitions)
        work = {"shape": "small", "rows": LONG}
        jobs = {"plain flax": partial(train_plainly, framework="flax", steps=PLAIN_STEPS["small"], **work)}
        measure("long", jobs | {"JAX": partial(train, form="JAX", epochs=1, **work)})
    work = {"shape": "small", "rows": 480, "others": ("--learning_rate", 1e-3)}
    jobs = {
        f"plain {framework}": partial(train_plainly, framework=framework, steps=60, **work)
        for framework in options.frameworks
    }
    measure("loss", jobs | {form: partial(train, form=form, epochs=1, **work) for form in forms})
    if "pytorch" in options.frameworks:
        flags = itertools.product((1, 2, 3), ("--group_by_length", "--no_group_by_length"))
        measure("grouping", {f"{flag}, {seed}": partial(learn, seed=seed, flag=flag) for seed, flag in flags})
    for shape in decoders.BLOCK:
        who = [form for form in decoders.FORMS if form in forms] + ["stock"] * (
            "pytorch" in options.frameworks
        )
        jobs = {each: partial(decoders.true_shape, who=each, shape=shape) for each in who}
        measure(f"decoders, {shape}", jobs, options.repetitions)
    ways = itertools.product(forms, decoders.PACKING)
    jobs = {f"{form}, {way}": partial(decoders.packed, form=form, way=way) for form, way in ways}
    measure("packing", jobs, options.repetitions)
    who = [*forms, *["stock"] * ("pytorch" in options.frameworks)]
    jobs = {each: partial(vision.true_shape, who=each) for each in who}
    measure("pictures, ViT-base", jobs, options.repetitions)
    # Alone on the machine: some of these have two cores.
    for form, cores, workers in itertools.product(forms, (1, 2), (*vision.WORKERS, None)):
        job = partial(vision.waiting, form=form, cores=cores, workers=workers)
        measure("waiting", {f"{form}, {cores}, {workers}": job}, options.repetitions)
    report.write(results, {shape: operations(shape, rows) for shape, (rows, _) in ROWS.items()})


if __name__ == "__main__":
    main()
