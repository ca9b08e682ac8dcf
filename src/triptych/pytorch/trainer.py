"""The Hugging Face Trainer with the batches, evaluation, schedule and checkpoints that every form shares."""

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import EarlyStoppingCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.training_args import OptimizerNames

from triptych import arguments, batching, checkpoints, data, results, run, schedule
from triptych.progress import Progress
from triptych.pytorch import loading, optimization


@dataclass
class TrainerArguments(arguments.TrainingArguments, Seq2SeqTrainingArguments):
    """Other flags of transformers' Trainer"""

    state_file = "trainer_state.json"

    def __post_init__(self) -> None:
        arguments.TrainingArguments.__post_init__(self)
        self._problems = arguments.TrainingArguments.problems(self)
        if self.optim not in [name.value for name in OptimizerNames]:
            self._problems.append(f"--optim {self.optim}: the Trainer has no such optimizer.")
        if self._problems:
            return  # the Trainer's own checks stop at the first problem, and would hide the others
        # Without an accelerator the Trainer asks for --use_cpu before it computes in bfloat16.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        if self.logging_dir:
            os.environ["TENSORBOARD_LOGGING_DIR"] = self.logging_dir
        # The Trainer's name for it, since it calls the usual one deprecated.
        self.activation_checkpointing = self.gradient_checkpointing or self.activation_checkpointing
        self.gradient_checkpointing = None  # type: ignore[assignment]
        Seq2SeqTrainingArguments.__post_init__(self)
        # One process per device, as in the other forms: the Trainer would wrap the model in DataParallel.
        self._n_gpu = min(self._n_gpu, 1)
        # A loss that is not finite ends the run, instead of being logged as an average of others.
        self.logging_nan_inf_filter = False

    def problems(self) -> list[str]:
        return self._problems


class Trainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer that trains, evaluates and saves as the explicit loops do.

    Args:
        token_loss: `(logits, labels, label_smoothing) -> sum of the loss over real target tokens`.
        collate: `(columns of rows) -> dict of numpy arrays`.
        generation: arguments of `model.generate` in evaluation and prediction.
        compute_metrics: `(generated token ids by row) -> metrics`.
    """

    def __init__(
        self,
        *,
        token_loss: Callable,
        collate: loading.Collate,
        generation: dict[str, Any],
        **trainer_arguments: Any,
    ):
        self.token_loss, self.collate, self.generation = token_loss, collate, generation
        super().__init__(compute_loss_func=self._mean_loss, **trainer_arguments)
        # The Trainer removes checkpoints by a rule of its own, even the newest one.
        self.save_total_limit, self.args.save_total_limit = self.args.save_total_limit, None
        # T5 and BART take **kwargs, from which the Trainer concludes that they divide the loss by the tokens
        # of the whole step. They do not; `_mean_loss` does.
        self.model_accepts_loss_kwargs = False
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.watch = Watch(self)
        self.add_callback(self.watch)
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))

    def _mean_loss(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor
    ) -> torch.Tensor:
        return self.token_loss(outputs.logits, labels, self.args.label_smoothing_factor) / num_items_in_batch

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return loading.epoch_loader(self.train_dataset, self.collate, self.args)

    def train_to_the_end(self, checkpoint: Path | None) -> dict[str, float]:
        """Trains, from a checkpoint if there is one, and returns what `train_results.json` holds.

        Raises:
            run.Stopped: after a signal, with a checkpoint saved.
        """
        with run.deferred_stop() as self.watch.stop_signal:
            self.train(resume_from_checkpoint=checkpoint and str(checkpoint))
            if number := self.watch.stop_signal():
                raise run.Stopped(number)
        rows = None if data.is_stream(self.train_dataset) else len(self.train_dataset)
        return self.watch.progress.train_metrics(self.state.global_step, rows)

    def run_state(self) -> dict[str, Any]:
        """What `trainer_state.json` holds: the Trainer's own, with the steps of the plan, and without its
        last entry in the log, a summary that `train_results.json` has."""
        plan = self.watch.progress.plan
        return dataclasses.asdict(self.state) | {
            "eval_steps": plan.evaluation.steps,
            "logging_steps": plan.logging.steps,
            "save_steps": plan.saving.steps,
            "log_history": [entry for entry in self.state.log_history if "train_loss" not in entry],
        }

    # Steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.step_loss, self.step_tokens = 0.0, 0
        return super().create_optimizer(model)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if schedule.decays(parameter.shape)]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None and self.args.lr_scheduler_type not in schedule.ADAPTIVE:
            rates = schedule.learning_rates(self.args, num_training_steps) / self.args.learning_rate
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: float(rates[step])
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler or super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(self, *arguments: Any) -> tuple[list, Any]:
        batches, target_tokens = super().get_batch_samples(*arguments)
        self.step_tokens = int(sum(batch["attention_mask"].sum() for batch in batches) + target_tokens)
        return batches, target_tokens

    def training_step(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **keywords)
        self.step_loss += loss.item()
        return loss

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of the validation rows or of `eval_dataset`, of generated text if asked for."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics, generated = self.run_rows(dataset, metric_key_prefix, self.args.predict_with_generate)
        if generated and self.compute_metrics is not None:
            metrics |= {
                f"{metric_key_prefix}_{name}": value
                for name, value in self.compute_metrics(generated).items()
            }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def run_rows(self, dataset: Any, prefix: str, generate: bool) -> tuple[dict[str, float], list[list[int]]]:
        """Loss and generated token ids of every row, on any number of processes; see `results.combine`."""
        if not self.accelerator._models:
            self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model.eval()
        args, began, outcomes = self.args, time.perf_counter(), []
        batches = batching.evaluation_batches(data.lengths(dataset), args.per_device_eval_batch_size)
        for rows in batches[args.process_index :: args.world_size]:
            batch = loading.as_tensors(self.collate(dataset[rows]), args.device)
            labels, loss, target_tokens, ids = batch.pop("labels", None), 0.0, 0, None
            if labels is not None:
                loss = self.token_loss(self.model(**batch).logits, labels).item()
                target_tokens = (labels != -100).sum().item()
            if generate:
                source = {name: batch[name] for name in ("input_ids", "attention_mask")}
                ids = self.model.generate(**source, **self.generation).tolist()
            outcomes.append((rows.tolist(), loss, target_tokens, ids))
        return results.combine(gather_object(outcomes), prefix, time.perf_counter() - began)

    # Checkpoints

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing about tied weights, which are stored once."""
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _save(self, *arguments: Any, **keywords: Any) -> None:
        """Without the token in `training_args.bin`, which is shared more easily than a password."""
        token, self.args.hub_token = self.args.hub_token, None
        super()._save(*arguments, **keywords)
        self.args.hub_token = token

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """The Trainer's own checkpoint, sealed; older ones are removed only then."""
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            checkpoints.seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
            checkpoints.rotate(self.args.output_dir, self.save_total_limit, self.state.best_global_step)


class Watch(TrainerCallback):
    """What the explicit loops do around each step: seed its dropout, move the bar, heed a signal."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.stop_signal: Callable[[], int | None] = lambda: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        rows = None if data.is_stream(self.trainer.train_dataset) else len(self.trainer.train_dataset)
        plan = schedule.plan(args, rows, args.world_size)
        self.progress = Progress(plan, args, start=state.global_step, quiet=not state.is_world_process_zero)

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        optimization.seed_step(args.seed, state.global_step + 1, args.process_index)
        self.trainer.step_loss = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        self.progress.tick(state.global_step, self.trainer.step_loss, self.trainer.step_tokens)
        if self.stop_signal():
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if self.stop_signal():  # what is due at an epoch's end waits for the next start
            control.should_evaluate = control.should_save = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **unused: Any
    ) -> None:
        if hasattr(self, "progress"):
            self.progress.show(state.global_step, metrics)
