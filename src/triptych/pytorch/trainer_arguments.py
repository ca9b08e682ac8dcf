"""The flags of the Trainer form. They need torch, but not the Trainer, which takes seconds to import."""

import os
from dataclasses import dataclass

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.training_args import OptimizerNames

from triptych import arguments
from triptych.output import reporting


@dataclass
class TrainerArguments(arguments.TrainingArguments, Seq2SeqTrainingArguments):
    """Other flags of transformers' Trainer"""

    optimizer_file = "optimizer.pt"
    other_trackers = reporting.OF_THE_TRAINER
    free = frozenset(Seq2SeqTrainingArguments.__dataclass_fields__) - {
        *arguments.TrainingArguments.__dataclass_fields__,
        *("neftune_noise_alpha", "optim_args", "optim_target_modules"),
    }

    def __post_init__(self) -> None:
        arguments.TrainingArguments.__post_init__(self)
        self._problems = arguments.TrainingArguments.problems(self)
        if self.optim not in [name.value for name in OptimizerNames]:
            self._problems.append(f"--optim {self.optim}: the Trainer has no such optimizer.")
        if self.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
            self._problems.append(
                "--fsdp: the Trainer's checkpoints would not be those of the other forms; the script "
                "*_no_trainer.py takes it."
            )
        if self.hub_revision or self.hub_always_push:
            self._problems.append(
                "--hub_revision and --hub_always_push: not in use here; see --hub_strategy."
            )
        if self._problems:
            return  # the Trainer's own checks stop at the first problem, and would hide the others
        # Without an accelerator the Trainer asks for --use_cpu before it computes in bfloat16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        # The Trainer's name for it, since it calls the usual one deprecated.
        self.activation_checkpointing = self.gradient_checkpointing or self.activation_checkpointing
        self.gradient_checkpointing = None  # type: ignore[assignment]
        self.report_to = reporting.names(self.report_to)  # type: ignore[assignment]
        Seq2SeqTrainingArguments.__post_init__(self)
        # One process per device, as in the other forms: the Trainer would wrap the model in DataParallel.
        self._n_gpu = min(self._n_gpu, 1)
        # A loss that is not finite ends the run, instead of being logged as an average of others.
        self.logging_nan_inf_filter = False

    def problems(self) -> list[str]:
        return self._problems
