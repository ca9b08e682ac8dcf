"""The flags of the Trainer form. They need torch, but not the Trainer, which takes seconds to import."""

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from accelerate.utils import DynamoBackend
from transformers import Seq2SeqTrainingArguments
from transformers.training_args import OptimizerNames

from triptych import arguments, spellings
from triptych.output import reporting

# Flags of transformers that are not ours. Each is of one kind: another name of ours (ALIASES and MEANINGS of
# `spellings`), refused (ANSWERS), HONOURED, or OUTSIDE_RESULTS. What a newer release adds is refused.
THEIRS = {
    field.name: field
    for field in dataclasses.fields(Seq2SeqTrainingArguments)
    if field.name not in arguments.TrainingArguments.__dataclass_fields__
}
# Parts of the names of the optimizers that read --optim_args, and --optim_target_modules
READ_ARGS = (
    *("sgd", "adagrad", "rmsprop", "ademamix", "anyprecision", "galore", "apollo", "grokadamw"),
    *("torch_4bit", "torch_8bit", "schedule_free", "stable_adamw"),
)
READ_MODULES = ("galore", "apollo")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass
class TrainerArguments(arguments.TrainingArguments, Seq2SeqTrainingArguments):
    """Other flags of transformers' Trainer"""

    optimizer_file = "optimizer.pt"
    other_trackers = reporting.OF_THE_TRAINER
    free = frozenset(THEIRS) - {"neftune_noise_alpha", "optim_args", "optim_target_modules"}

    def __post_init__(self) -> None:
        arguments.TrainingArguments.__post_init__(self)
        self._problems = arguments.TrainingArguments.problems(self)
        if self.optim not in [name.value for name in OptimizerNames]:
            self._problems.append(f"--optim {self.optim}: the Trainer has no such optimizer.")
        self._problems += self._not_taken() + self._without_companions() + self._impossible_values()
        if self._problems:
            return  # the Trainer's own checks stop at the first problem, and would hide the others
        # Without an accelerator the Trainer asks for --use_cpu before it computes in bfloat16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        self.report_to = reporting.names(self.report_to)  # type: ignore[assignment]
        if "activation_checkpointing" in THEIRS:  # the newer name: the Trainer calls ours deprecated
            self.activation_checkpointing = self.gradient_checkpointing
            self.activation_checkpointing_kwargs = self.gradient_checkpointing_kwargs
            self.gradient_checkpointing = self.gradient_checkpointing_kwargs = None  # type: ignore[assignment]
        # The Trainer wants a number, but logs by our plan.
        logging_steps, self.logging_steps = self.logging_steps, self.logging_steps or 500
        Seq2SeqTrainingArguments.__post_init__(self)
        self.logging_steps = logging_steps
        # A loss that is not finite ends the run, instead of being logged as an average of others.
        self.logging_nan_inf_filter = False

    @property
    def n_gpu(self) -> int:
        """One process per device, as in the other forms: for several GPUs of one process the Trainer would
        wrap the model in DataParallel."""
        return min(super().n_gpu, 1)

    def _not_taken(self) -> list[str]:
        """Flags that are refused, or are ours under other names, and have another value than by default."""
        found = []
        for name, field in THEIRS.items():
            value = getattr(self, name)
            made = field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            if name in spellings.HONOURED or name in spellings.OUTSIDE_RESULTS:
                continue
            by_launcher = os.environ.get(f"ACCELERATE_USE_{name.upper()}") == "true"  # fsdp, deepspeed
            if (value == default or spellings.asks_for_nothing(name, value)) and not by_launcher:
                continue
            version = transformers.__version__
            answer = (
                spellings.answer(name) or f"new in transformers {version}, and not known here; leave it out"
            )
            found.append(f"--{name}: {answer}.")
        return found

    def _without_companions(self) -> list[str]:
        """Flags that would do nothing without another one."""
        found = []
        for name in (
            *("dataloader_multiprocessing_context", "dataloader_persistent_workers"),
            "dataloader_prefetch_factor",
        ):
            if getattr(self, name) and not self.dataloader_num_workers:
                found.append(f"--{name} needs --dataloader_num_workers.")
        if self.gradient_checkpointing_kwargs and not self.gradient_checkpointing:
            found.append("--gradient_checkpointing_kwargs needs --gradient_checkpointing.")
        for name, readers in (("optim_args", READ_ARGS), ("optim_target_modules", READ_MODULES)):
            if getattr(self, name) and not any(part in self.optim for part in readers):
                found.append(f"--{name}: the optimizer {self.optim} does not read it.")
        return found

    def _impossible_values(self) -> list[str]:
        """Values that would end in a failure, or in nothing, later."""
        found = []
        known: dict[str, Any] = {
            "dataloader_multiprocessing_context": torch.multiprocessing.get_all_start_methods(),
            "torch_compile_backend": [backend.value.lower() for backend in DynamoBackend],
            "torch_compile_mode": COMPILE_MODES,
        }
        for name, values in known.items():
            if (value := getattr(self, name)) is not None and str(value).lower() not in values:
                found.append(f"--{name} {value}: must be one of {', '.join(values)}.")
        kwargs = self.gradient_checkpointing_kwargs
        if isinstance(kwargs, str) and not _is_object(kwargs):
            found.append(f"--gradient_checkpointing_kwargs {kwargs}: must be a JSON object.")
        for part in (self.optim_args or "").split(","):
            if part and part.count("=") != 1:
                found.append(f"--optim_args: {part!r} is not of the form name=value.")
        return found

    def problems(self) -> list[str]:
        return self._problems


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
