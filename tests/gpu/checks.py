"""What every script must do on a card as on the processor, on tiny samples with tiny models from scratch."""

import array
import json
import math
import shutil
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import Failure, Framework, Machine, TimeOver, flags, say

STEPS, SAVED = 30, 10  # optimizer steps of a run, and the one after whose checkpoint it is killed
# Largest relative differences of the loss from the processor's in float32, at any step and in evaluation
FLOAT32, BFLOAT16, FLOAT16 = 1e-4, 0.03, 0.03
ALIKE = 0.9  # share of the predictions that must be the same in float32: near ties may fall otherwise

COMMON: dict[str, Any] = {
    "max_train_samples": 240,
    "max_eval_samples": 32,
    "max_predict_samples": 20,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 16,
    "max_steps": STEPS,
    "warmup_steps": 5,
    "logging_steps": 1,
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "output_dir": "out",
}
TASKS: dict[str, dict[str, Any]] = {
    "summarization": {
        "model_type": "t5",
        "learning_rate": 1e-3,
        "max_source_length": 64,
        "max_target_length": 16,
        "predict_with_generate": True,
    },
    "text-classification": {
        "model_type": "bert",
        "learning_rate": 3e-3,
        "max_seq_length": 64,
        "text_column_names": "text",
        "label_column_name": "topic",
    },
    "token-classification": {
        "model_type": "bert",
        "learning_rate": 3e-3,
        "max_seq_length": 64,  # so that many rows are read in two windows
        "text_column_name": "text",
        "label_column_name": "entities",
    },
    "causal-language-modeling": {
        "model_type": "gpt2",
        "learning_rate": 1e-3,
        "block_size": 64,
        "text_column": "text",
    },
    "masked-language-modeling": {
        "model_type": "bert",
        "learning_rate": 3e-3,
        "max_seq_length": 64,
        "text_column": "text",
        "line_by_line": True,
    },
    "denoising": {"model_type": "t5", "learning_rate": 1e-3, "max_seq_length": 64, "text_column": "text"},
    "image-classification": {
        "model_type": "vit",
        "learning_rate": 3e-3,
        "image_column_name": "image",
        "label_column_name": "digit",
    },
    "multiple-choice": {
        "model_type": "bert",
        "learning_rate": 3e-3,
        "context_column": "summary",
        "label_column_name": "choice",
    },
    "question-answering": {
        "model_type": "bert",
        "learning_rate": 1e-3,
        "max_seq_length": 128,
        "context_column": "text",
        "version_2_with_negative": True,
    },
    "translation": {
        "model_type": "t5",
        "learning_rate": 1e-3,
        "source_lang": "en",
        "target_lang": "xx",
        "max_source_length": 64,
        "max_target_length": 16,
        "predict_with_generate": True,
    },
}
T5 = "d_model=64,d_ff=128,d_kv=16,num_heads=4,num_layers=2,dropout_rate={0}"
ENCODER = (
    "hidden_size=64,intermediate_size=128,num_hidden_layers=2,num_attention_heads=4,"
    "hidden_dropout_prob={0},attention_probs_dropout_prob={0},initializer_range=0.05"
)
GPT2 = "n_embd=64,n_layer=2,n_head=4,n_positions=128,resid_pdrop={0},embd_pdrop={0},attn_pdrop={0}"
# Of the models; {0} is the dropout
SIZES = {
    "image-classification": f"image_size=8,patch_size=2,{ENCODER}",
    "causal-language-modeling": GPT2,
    "denoising": T5,
    "summarization": T5,
    "text-classification": ENCODER,
    "token-classification": ENCODER,
    "masked-language-modeling": ENCODER,
    "multiple-choice": ENCODER,
    "question-answering": ENCODER,
    "translation": T5,
}
# With weights so large that the first gradients do not fit into float16 at the scale with which it begins
LARGE = {
    "image-classification": ",initializer_range=0.5",
    "causal-language-modeling": ",initializer_range=0.5",
    "denoising": ",initializer_factor=2.0",
    "summarization": ",initializer_factor=2.0",
    "text-classification": ",initializer_range=0.5",
    "token-classification": ",initializer_range=0.5",
    "masked-language-modeling": ",initializer_range=0.5",
    "multiple-choice": ",initializer_range=0.5",
    "question-answering": ",initializer_range=0.5",
    "translation": ",initializer_factor=2.0",
}


@dataclass(frozen=True)
class Form:
    """One script."""

    task: str
    name: str
    script: Path
    predictions: str
    framework: Framework

    def __str__(self) -> str:
        return f"{self.task}, {self.name}"


@dataclass
class Check:
    """What one check of a form found.

    Attributes:
        verdict: "ok", "failed", or "late" where there was no time for it.
        said: in a few words, for the table; of a failure, what is wrong.
        figures: what was measured.
    """

    form: str
    what: str
    verdict: str = "ok"
    said: str = ""
    figures: dict[str, float] = field(default_factory=dict)


class Run:
    """What a script left in its output folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text())

    def log(self, key: str) -> list[float]:
        """The values of one key at every logged step; None for what was not finite."""
        return [entry[key] for entry in self.json("trainer_state.json")["log_history"] if key in entry]

    @property
    def left_out(self) -> int:
        """Steps whose gradient was not finite, which the loss scale of float16 leaves out."""
        return sum(value is None or not math.isfinite(value) for value in self.log("grad_norm"))

    @property
    def results(self) -> dict[str, float]:
        """All metrics without what the clock says."""
        found = self.json("all_results.json")
        return {key: value for key, value in found.items() if not key.endswith(("_runtime", "_per_second"))}

    @property
    def weights(self) -> bytes:
        return (self.folder / "model.safetensors").read_bytes()


def largest_difference(found: list[float], expected: list[float]) -> float:
    """The largest relative difference of two curves.

    Raises:
        Failure: if they are not of the same length, or a value is not finite.
    """
    if len(found) != len(expected) or not found:
        raise Failure(f"{len(found)} steps instead of {len(expected)}")
    if not all(value is not None and math.isfinite(value) for value in found):
        raise Failure("a loss is not finite")
    return max(abs(one - other) / max(abs(other), 1e-12) for one, other in zip(found, expected, strict=True))


def numbers(content: bytes) -> "array.array[float]":
    """All float32 numbers of a safetensors file, in the order of the file."""
    (header,) = struct.unpack("<Q", content[:8])
    found = array.array("f")
    found.frombytes(content[8 + header :])
    return found


def differences(found: Run, expected: Run, predictions: str) -> list[str]:
    """In what two runs that should be the same are not, with how far apart they are."""
    said = []
    if found.weights != expected.weights:
        pairs = zip(numbers(found.weights), numbers(expected.weights), strict=True)
        said.append(f"weights by up to {max(abs(one - other) for one, other in pairs):.1e}")
    for key in ("loss", "grad_norm", "learning_rate"):
        ours, theirs = found.log(key), expected.log(key)
        if ours != theirs:
            step = next(
                (n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0
            )
            said.append(f"{key} from step {step + 1}")
    if found.results != expected.results:
        said.append("metrics")
    if (found.folder / predictions).read_bytes() != (expected.folder / predictions).read_bytes():
        said.append("predictions")
    return said


class Checks:
    """The checks of one form, in the order in which one needs what the other left."""

    def __init__(self, machine: Machine, form: Form, samples: Path):
        self.machine, self.form, self.samples = machine, form, samples
        self.expected: Run | None = None  # on the processor, in float32
        self.folder = machine.folder / "checks" / form.task / form.name
        shutil.rmtree(self.folder, ignore_errors=True)

    def words(self, sizes: str, *others: str) -> list[str]:
        settings = COMMON | TASKS[self.form.task] | {"config_overrides": sizes}
        settings |= {f"{split}_file": self.samples / f"{split}.jsonl" for split in ("train", "test")}
        settings |= {"validation_file": self.samples / "validation.jsonl"}
        if "image_column_name" not in settings:
            settings |= {"tokenizer_name": self.samples / "tokenizer"}
        return [self.form.framework.python, str(self.form.script), *flags(**settings), *others]

    def inside(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def run(self, name: str, *others: str, sizes: str = "", on_device: bool = True) -> Run:
        """A whole run in a folder of that name; saves checkpoints only if told to."""
        saving = () if "--save_steps" in others else ("--save_strategy", "no")
        command = self.words(sizes or self.sizes(), *saving, *others)
        folder = self.inside(name)
        self.machine.call(command, folder, on_device=on_device, **self.variables(others))
        return Run(folder / "out")

    def sizes(self, dropout: float = 0.0) -> str:
        return SIZES[self.form.task].format(dropout)

    def variables(self, others: tuple[str, ...]) -> dict[str, Any]:
        """Of a run with these flags: one that is continued must give the same bits each time."""
        return {
            "exact": "--save_steps" in others,
            "cache": self.folder / "compiled",
            "float32": not {"--bf16", "--fp16"} & set(others),
        }

    def float32(self, check: Check) -> None:
        """The curve, the evaluation and the predictions, against the processor's."""
        expected = self.expected = self.run("cpu", "--use_cpu", on_device=False)
        found = self.run("float32", *self.use_cpu)
        device = found.json("run.json")["device"]
        if (device == "cpu") != (self.machine.device == "cpu"):
            raise Failure(f"it computed on {device}")
        answers = [
            [line.split("\t")[:2] for line in (run.folder / self.form.predictions).read_text().splitlines()]
            for run in (found, expected)
        ]  # of a table the number of the row and the answer, without its probability
        same = [one == other for one, other in zip(*answers, strict=True)]
        check.figures = {
            "loss": largest_difference(found.log("loss"), expected.log("loss")),
            "eval_loss": self.eval_difference(found),
            "same_predictions": sum(same) / len(same),
        }
        check.said = f"{max(check.figures['loss'], check.figures['eval_loss']):.1e}"
        if max(check.figures["loss"], check.figures["eval_loss"]) > FLOAT32:
            raise Failure(f"{check.said} from the processor's loss; at most {FLOAT32} is rounding")
        if check.figures["same_predictions"] < ALIKE:
            raise Failure(f"only {sum(same)} of {len(same)} predictions are the processor's")

    def eval_difference(self, found: Run) -> float:
        loss, expected = (run.json("eval_results.json")["eval_loss"] for run in (found, self.reference))
        return largest_difference([loss], [expected])

    @property
    def reference(self) -> Run:
        if self.expected is None:
            raise Failure("there is no run on the processor to compare with")
        return self.expected

    @property
    def use_cpu(self) -> tuple[str, ...]:
        return ("--use_cpu",) if self.machine.device == "cpu" else ()

    def bfloat16(self, check: Check) -> None:
        self.near(check, self.run("bfloat16", "--bf16", *self.use_cpu), BFLOAT16)

    def near(self, check: Check, found: Run, limit: float) -> None:
        losses = found.log("loss")
        check.figures = {
            "loss": largest_difference(losses, self.reference.log("loss")),
            "eval_loss": self.eval_difference(found),
        }
        check.said = f"{check.figures['loss']:.1e}"
        if check.figures["loss"] > limit:
            raise Failure(f"{check.said} from float32's loss, more than {limit}")
        if check.figures["loss"] == 0:
            raise Failure("it is float32's loss to the last bit: the flag did nothing")
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        if last >= first:
            raise Failure(f"it does not learn: loss {first:.4g} at first, {last:.4g} at last")

    def float16(self, check: Check) -> None:
        """With a scaled loss; or a refusal, in JAX and on a processor."""
        if self.refuses_float16:
            words = ("--fp16", *self.use_cpu)
            command, folder = self.words(self.sizes(), *words), self.inside("float16")
            ended = self.machine.run(command, folder, **self.variables(words))
            if ended.code != 2 or "--fp16: " not in ended.text:
                raise Failure(f"not refused, but ended with {ended.code}")
            check.said = "refused"
            return
        found = self.run("float16", "--fp16")
        self.near(check, found, FLOAT16)
        check.figures["left_out"] = found.left_out
        # The norm that clips is of gradients that are no longer scaled.
        pairs = zip(found.log("grad_norm"), self.reference.log("grad_norm"), strict=True)
        norms = [(one, other) for one, other in pairs if one is not None and math.isfinite(one)]
        if len(norms) < STEPS // 2:
            raise Failure(f"{found.left_out} of {STEPS} steps were left out")
        check.figures["grad_norm"] = largest_difference(*map(list, zip(*norms, strict=True)))
        if check.figures["grad_norm"] > 0.5:
            raise Failure(f"its gradients' norms are {check.figures['grad_norm']:.1e} from float32's")
        check.said += f", {found.left_out} left out"

    @property
    def refuses_float16(self) -> bool:
        return self.machine.device == "cpu" or self.form.framework.name == "flax"

    def continuation(self, check: Check) -> None:
        """Killed after a checkpoint and started again, with dropout: the end must be that of a run that was
        not killed."""
        self.compare_continued(check, "", self.sizes(dropout=0.1), *self.use_cpu)

    def continuation_in_float16(self, check: Check) -> None:
        """The same with a loss scale that the first steps, which are left out, have changed."""
        expected = self.compare_continued(check, "-float16", self.sizes() + LARGE[self.form.task], "--fp16")
        check.figures["left_out"] = expected.left_out
        if not expected.left_out:
            check.said += ", but the scale never changed"

    def compare_continued(self, check: Check, kind: str, sizes: str, *others: str) -> Run:
        others = (*others, "--save_steps", str(SAVED))
        expected = self.run(f"uninterrupted{kind}", *others, sizes=sizes)
        command, folder = self.words(sizes, *others), self.inside(f"killed{kind}")
        checkpoint = folder / f"out/checkpoint-{SAVED}"
        self.machine.killed_after(checkpoint, command, folder, **self.variables(others))
        if (folder / "out/all_results.json").exists():
            raise Failure("it was killed too late, after its end")
        found = self.run(f"killed{kind}", *others, sizes=sizes)
        different = differences(found, expected, self.form.predictions)
        check.said = "exact"
        if different:
            # If the device itself gives other bits each time, that says nothing about the continuation.
            again = self.run(f"again{kind}", *others, sizes=sizes)
            luck = differences(again, expected, self.form.predictions)
            apart = largest_difference(found.log("loss"), expected.log("loss"))
            check.figures = {"loss": apart}
            if not luck:
                raise Failure(f"continued, it differs in {', '.join(different)}")
            check.figures["uninterrupted_again"] = largest_difference(again.log("loss"), expected.log("loss"))
            check.said = f"{apart:.1e}, not exact: two uninterrupted runs differ by "
            check.said += f"{check.figures['uninterrupted_again']:.1e}"
            if apart > FLOAT32:
                raise Failure(check.said)
        return expected

    def all(self) -> list[Check]:
        """Every check; one that fails keeps none of the others from being made, but for the reference."""
        planned: dict[str, Callable[[Check], None]] = {
            "float32": self.float32,
            "bfloat16": self.bfloat16,
            "float16": self.float16,
            "continued": self.continuation,
        }
        if not self.refuses_float16:
            planned["continued, float16"] = self.continuation_in_float16
        found = []
        for what, make in planned.items():
            check = Check(str(self.form), what)
            try:
                make(check)
            except TimeOver as error:
                check.verdict, check.said = "late", str(error)
            except (Failure, OSError, ValueError, KeyError) as error:
                check.verdict, check.said = "failed", str(error) or type(error).__name__
            say(f"  {check.form}, {what}: {check.verdict}, {check.said}")
            found.append(check)
        return found


def check_all(machine: Machine, forms: list[Form], samples: Path, workers: int) -> list[Check]:
    """The checks of all forms, several forms at a time."""
    with ThreadPoolExecutor(workers) as threads:
        try:
            found = list(threads.map(lambda form: Checks(machine, form, samples).all(), forms))
        except BaseException:  # Ctrl-C: without this the threads would go on to their end
            machine.seconds = 0
            raise
    return [check for checks in found for check in checks]
