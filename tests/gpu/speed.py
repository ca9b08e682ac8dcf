"""Useful tokens per second and memory of models of true size, beside the stock Trainer of transformers."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks import Form
from machine import HERE, Failure, Framework, Machine, flags, say

PRECISIONS = {"float32": (), "bfloat16": ("--bf16",)}
LABEL = "package"  # what BERT is to tell of a docstring
COUNT_TOKENS = """
import json, sys, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
for row in map(json.loads, open(sys.argv[2])):
    print("tokens", *(len(tokenizer(row[column])["input_ids"]) for column in ("text", "summary")))
"""


@dataclass(frozen=True)
class Shape:
    """A model from scratch and how it is trained.

    Attributes:
        vocabulary: entries of the tokenizer, most of them unused, so that tables have their true size.
        first: the steps before those that are measured.
    """

    name: str
    task: str
    model_type: str
    sizes: dict[str, int]
    vocabulary: int
    batch: int = 64
    length: int = 256
    target_length: int = 32
    steps: int = 40
    first: int = 10

    def operations(self, source: int, target: int) -> float:
        """Floating-point operations of training on a row, by the sizes of the matrices: a product of [m, k]
        and [k, n] counts 2mkn, the backward pass twice. Padding, norms, softmax and optimizer do not."""
        sizes = self.sizes
        if self.model_type == "bert":
            width, wide = sizes["hidden_size"], sizes["intermediate_size"]
            layer = source * (8 * width * width + 4 * width * wide + 4 * source * width)
            return 3.0 * sizes["num_hidden_layers"] * layer
        width, inner, wide = sizes["d_model"], sizes["num_heads"] * sizes["d_kv"], sizes["d_ff"]
        layer = source * (8 * width * inner + 4 * width * wide + 4 * source * inner)  # of the encoder
        layer += target * (8 * width * inner + 4 * width * wide + 4 * target * inner)
        layer += source * 4 * width * inner + target * (4 * width * inner + 4 * source * inner)
        return 3.0 * (sizes["num_layers"] * layer + 2 * target * width * self.vocabulary)


T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
BERT_BASE |= {"intermediate_size": 3072}
TRUE = (
    Shape("t5-small", "summarization", "t5", T5_SMALL, 32_128),
    Shape("BERT-base", "text-classification", "bert", BERT_BASE, 30_522),
)
# For a processor: of everything as little as shows that it works
T5_TINY = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
BERT_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SHORT: dict[str, int] = {"batch": 8, "length": 64, "target_length": 16, "steps": 12, "first": 4}
SMALL = (
    Shape("tiny T5", "summarization", "t5", T5_TINY, 2_000, **SHORT),
    Shape("tiny BERT", "text-classification", "bert", BERT_TINY, 2_000, **SHORT),
)
SIDE = {"gpu": 8192, "cpu": 512}  # of the matrices that show what the device can do


@dataclass
class Speed:
    """What was measured of a form, or of the stock Trainer, which has no ratios.

    Attributes:
        tokens: useful ones a second.
        times_stock: how many times as many as the stock Trainer's.
        of_limit: operations of useful tokens, as a share of what the device's product of matrices does.
        memory: the most bytes in use; of_stock and of_card are ratios to the stock Trainer's and to all.
        step: seconds of an optimizer step; of the stock Trainer the mean of its runs, which are `steps`.
    """

    shape: str
    precision: str
    form: str
    step: float
    tokens: float
    of_limit: float | None
    memory: int
    of_card: float | None
    times_stock: float | None = None
    of_stock: float | None = None
    steps: list[float] | None = None


def fill_up(tokenizer: Path, entries: int, folder: Path) -> Path:
    """A copy of a tokenizer whose vocabulary has more entries, which no text contains."""
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"<unused {number}>": number for number in range(len(vocabulary), entries)}
    path.write_text(json.dumps(content))
    return folder


class Bench:
    """Measures one shape: the stock Trainer before and after the forms, which take turns."""

    def __init__(self, machine: Machine, shape: Shape, data: Path, limits: dict[str, float]):
        self.machine, self.shape, self.data, self.limits = machine, shape, data, limits
        self.folder = machine.folder / "speed" / shape.task
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.tokenizer = fill_up(data / "tokenizer", shape.vocabulary, self.folder / "tokenizer")
        cards = [one.about["card"] for one in machine.frameworks.values() if one.about["card"]]
        if cards:  # PyTorch knows all of a card's memory, JAX the part that it may use
            self.memory = max(card["memory"] or 0 for card in cards)
        else:
            self.memory = next(iter(machine.frameworks.values())).about["processor"]["memory"]
        self.count()

    def count(self) -> None:
        """Useful tokens and operations of a step, and the rows of whole batches that there are."""
        shape, python = self.shape, next(iter(self.machine.frameworks.values())).python
        command = [python, "-c", COUNT_TOKENS, self.tokenizer, self.data / "train.jsonl"]
        lines = self.machine.call(command, self.folder, on_device=False).text.splitlines()
        lengths = [tuple(map(int, line.split()[1:])) for line in lines if line.startswith("tokens ")]
        self.rows = shape.batch * min(shape.steps, len(lengths) // shape.batch)
        cut = [(min(a, shape.length), min(b, shape.target_length)) for a, b in lengths[: self.rows]]
        has_targets = shape.model_type == "t5"
        batches = self.rows / shape.batch
        self.tokens = sum(source + target * has_targets for source, target in cut) / batches
        self.operations = sum(shape.operations(source, target) for source, target in cut) / batches

    def speed(
        self, form: str, precision: str, step: float, memory: int, steps: list[float] | None = None
    ) -> Speed:
        limit = self.limits.get(precision)
        return Speed(
            shape=self.shape.name,
            precision=precision,
            form=form,
            step=step,
            tokens=self.tokens / step,
            of_limit=limit and self.operations / step / limit,
            memory=memory,
            of_card=memory / self.memory if self.memory else None,
            steps=steps,
        )

    def stock(self, framework: Framework, name: str, precisions: list[str]) -> dict[str, Any]:
        """The stock Trainer's figures by precision; memory counts for the first alone."""
        shape, path = self.shape, self.folder / f"{name}.json"
        settings = {
            "model_type": shape.model_type,
            "sizes": shape.sizes,
            "tokenizer": str(self.tokenizer),
            "train_file": str(self.data / "train.jsonl"),
            "label": LABEL,
            "precisions": precisions,
            "rows": self.rows,
        }
        fields = ("batch", "length", "target_length", "steps", "first")
        path.write_text(json.dumps(settings | {field: getattr(shape, field) for field in fields}))
        command = [framework.python, HERE / "stock.py", path]
        self.machine.call(command, self.folder)
        return json.loads(path.read_text())["found"]

    def ours(self, form: Form, precision: str) -> Speed:
        shape = self.shape
        folder = self.folder / f"{form.name}-{precision}"
        folder.mkdir()
        of_task: dict[str, Any] = {
            "max_source_length": shape.length,
            "max_target_length": shape.target_length,
        }
        if shape.model_type == "bert":
            of_task = {"max_seq_length": shape.length, "text_column_names": "text"}
            of_task["label_column_name"] = LABEL
        words = flags(
            model_type=shape.model_type,
            config_overrides=",".join(f"{key}={value}" for key, value in shape.sizes.items()),
            tokenizer_name=self.tokenizer,
            train_file=self.data / "train.jsonl",
            max_train_samples=self.rows,
            per_device_train_batch_size=shape.batch,
            max_steps=shape.steps,
            save_strategy="no",
            do_train=True,
            use_cpu=self.machine.device == "cpu" or None,
            output_dir="out",
            **of_task,
        )
        command = [form.framework.python, HERE / "observe.py", "noted.json", form.script, *words]
        float32 = precision == "float32"
        self.machine.call([*command, *PRECISIONS[precision]], folder, float32=float32)
        noted = json.loads((folder / "noted.json").read_text())
        if len(noted["steps"]) != shape.steps:
            raise Failure(f"{len(noted['steps'])} steps were noted instead of {shape.steps}")
        trained = json.loads((folder / "out/train_results.json").read_text())
        tokens = trained["train_tokens_per_second"] * trained["train_runtime"] / shape.steps
        if abs(tokens / self.tokens - 1) > 0.05:  # part of an epoch is a sample, where rows are few
            raise Failure(f"{tokens:.1f} useful tokens a step instead of {self.tokens:.1f}")
        # Steps in which something is compiled are left out: a longer run would have no more of them.
        times, compilations = noted["steps"][shape.first - 1 :], noted["compilations"]
        steps = [
            end - begin
            for begin, end in itertools.pairwise(times)
            if not any(begin < at <= end for at in compilations)
        ]
        if not steps:
            raise Failure("something was compiled in every step")
        return self.speed(form.name, precision, sum(steps) / len(steps), noted["memory"])

    def all(self, forms: list[Form]) -> tuple[list[Speed], list[str]]:
        """The figures of all that could be measured, and what could not, with what went wrong."""
        problems = []

        def attempt(name: str, job: Callable[..., Any], *arguments: Any) -> list[Any]:
            name = f"{self.shape.name}, {name}"
            try:
                found = job(*arguments)
            except (Failure, OSError, ValueError, KeyError) as error:
                problems.append(f"{name}: {error}")
                say(f"  {problems[-1]}")
                return []
            say(f"  {name}: done")
            return [found]

        names, ours, stock = list(PRECISIONS), [], []
        framework = self.machine.frameworks.get("pytorch")
        if framework:
            stock += attempt("stock Trainer, before", self.stock, framework, "stock-before", names)
        for form, precision in itertools.product(forms, names):
            ours += attempt(f"{form.name}, {precision}", self.ours, form, precision)
        if framework:
            stock += attempt("stock Trainer, after", self.stock, framework, "stock-after", names[::-1])
        plain = self.mean_of_stock(stock)
        for one in ours:
            if one.precision in plain:
                of_stock = plain[one.precision]
                one.times_stock, one.of_stock = of_stock.step / one.step, one.memory / of_stock.memory
        return sorted([*plain.values(), *ours], key=lambda one: names.index(one.precision)), problems

    def mean_of_stock(self, runs: list[dict[str, Any]]) -> dict[str, Speed]:
        """The mean of its runs by precision; memory is from the run in which the precision was the first."""
        found = {}
        for precision in PRECISIONS if runs else ():
            steps = [run[precision]["step"] for run in runs]
            memory = next((run for run in runs if next(iter(run)) == precision), runs[0])[precision]["memory"]
            mean = sum(steps) / len(steps)
            found[precision] = self.speed("stock Trainer", precision, mean, memory, steps)
        return found


def measure_limits(machine: Machine) -> dict[str, float]:
    """Operations per second by precision: the most that any framework's product of matrices does."""
    found: dict[str, float] = {}
    for framework in machine.frameworks.values():
        command = [framework.python, HERE / "limits.py", framework.name, SIDE[machine.device]]
        lines = machine.call(command, machine.folder, float32=False).text.splitlines()
        for name, value in json.loads(next(line for line in lines if line.startswith("{"))).items():
            found[name] = max(value, found.get(name, 0.0))
    return found
