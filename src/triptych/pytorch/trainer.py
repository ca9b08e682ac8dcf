"""The Hugging Face Trainer with the batches, evaluation, schedule and checkpoints that every form shares."""

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from triptych import batching, data, hub, run, schedule
from triptych.errors import InputError
from triptych.models import configs
from triptych.output import checkpoints, results
from triptych.progress import Progress
from triptych.pytorch import loading, optimization, saving
from triptych.pytorch.processes import gather_object
from triptych.run.state import RunState


class Trainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer that trains, evaluates and saves as the explicit loops do.

    Args:
        repository: to push checkpoints to, by `--hub_strategy`.
        summed_loss: `(logits, labels, label_smoothing) -> sum of the loss over the targets`, which are the
            labels other than -100.
        collate: `(columns of rows) -> dict of numpy arrays`.
        generation: arguments of `model.generate` in evaluation and prediction; None for a model that does not
            generate, whose outputs are its logits.
        compute_metrics: `(generated token ids, or logits, by row) -> metrics`.
    """

    def __init__(
        self,
        *,
        repository: hub.Repository | None,
        summed_loss: Callable,
        collate: loading.Collate,
        generation: dict[str, Any] | None = None,
        **trainer_arguments: Any,
    ):
        self.summed_loss, self.collate, self.generation = summed_loss, collate, generation
        args, self.repository = trainer_arguments["args"], repository
        generates = generation is not None and (args.do_predict or args.predict_with_generate)
        if generates and args.device.type == "xla":
            raise InputError(
                "An XLA device compiles a program for each length that is generated: leave out "
                "--predict_with_generate and --do_predict, and use the model elsewhere afterwards."
            )
        args.push_to_hub = False  # the Trainer would push beside us
        super().__init__(compute_loss_func=self._mean_loss, **trainer_arguments)
        # The Trainer removes checkpoints by a rule of its own, even the newest one.
        self.save_total_limit, self.args.save_total_limit = self.args.save_total_limit, None
        # T5 and BART take **kwargs, from which the Trainer concludes that they divide the loss by the targets
        # of the whole step. They do not; `_mean_loss` does.
        self.model_accepts_loss_kwargs = False
        self._run_dir, self.stop = self.args.output_dir, run.Stop()
        for theirs in (ProgressCallback, PrinterCallback, TensorBoardCallback):
            self.remove_callback(theirs)

    def _mean_loss(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor
    ) -> torch.Tensor:
        return self.summed_loss(outputs.logits, labels, self.args.label_smoothing_factor) / num_items_in_batch

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return loading.epoch_loader(self.train_dataset, self.collate, self.args)

    def train_to_the_end(self, plan: schedule.Plan, state: RunState) -> dict[str, float]:
        """Trains, from `state.checkpoint` if there is one, saves the model, and returns what
        `train_results.json` holds.

        Raises:
            run.Stopped: after a signal, with a checkpoint saved.
        """
        args, self.plan, self.run_state = self.args, plan, state
        state.require_same_step(gather_object([state.step]))
        self.progress = Progress(plan, args, state, quiet=not self.is_world_process_zero())
        with self.stop.after(lambda: self._save_checkpoint(self.model_wrapped, None)):
            if state.checkpoint and state.ended(plan, args):
                saving.load_weights(state.checkpoint, self.model)
            else:
                self.add_callback(Watch(self))
                with suppress(Ended):
                    self.train(resume_from_checkpoint=state.checkpoint and str(state.checkpoint))
        if args.load_best_model_at_end and state.best_step:
            saving.load_weights(checkpoints.of_step(args.output_dir, state.best_step), self.model)
        place = checkpoints.replacing(args.output_dir) if args.should_save else nullcontext(args.output_dir)
        with place as folder:
            self.save_model(str(folder), _internal_call=True)
        return self.progress.train_metrics(state.step)

    def _maybe_log_save_evaluate(
        self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=None
    ) -> None:
        """What the explicit loops do after a step, by the plan of the run instead of the Trainer's flow of
        control."""
        state, step = self.run_state, self.state.global_step
        if state.step == step:
            return  # called again at the end of an epoch
        state.step = step
        # Each process knows its own part, which is enlarged because gradients are averaged.
        loss = self.accelerator.reduce(self.step_loss, "mean")
        self.progress.tick(step, float(loss), self.step_tokens, float(grad_norm or 0))
        if self.plan.logs_after(step):
            rates = {"grad_norm": float(grad_norm), "learning_rate": learning_rate}
            values = {"loss": self.progress.mean_loss()} | rates
            self.progress.add(step, values)
            self.log(values)
        self.stop.check(gather_object([self.stop.number]))
        self.evaluate_and_save()
        self.control.should_training_stop = state.ended(self.plan, self.args)

    def evaluate_and_save(self) -> None:
        """Does what is due after the last step."""
        state, is_best = self.run_state, False
        if state.evaluation_due(self.plan):
            values = self._evaluate(None, None)
            self.progress.add(state.step, values)
            is_best = state.evaluated(values, self.args)
            self.stop.check(gather_object([self.stop.number]))
        if self.plan.saves_after(state.step, is_best):
            self._save_checkpoint(self.model_wrapped, None)

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
        batches, targets = super().get_batch_samples(*arguments)
        tokens = self.accelerator.reduce(sum(batch["attention_mask"].sum() for batch in batches))
        self.step_tokens = int(tokens if self.generation is None else tokens + targets)
        return batches, targets

    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *count: Any) -> torch.Tensor:
        parts, loss = loading.parts(inputs, self.args), torch.zeros(())
        for number, part in enumerate(parts, start=1):
            with self.accelerator.no_sync(model) if number < len(parts) else nullcontext():
                loss = loss + super().training_step(model, part, *count)
        self.step_loss = self.step_loss + loss
        return loss

    # Evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Metrics of the validation rows or of `eval_dataset`, of generated text if asked for."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        metrics, outputs = self.run_rows(dataset, metric_key_prefix, self.args.predict_with_generate)
        if outputs and self.compute_metrics is not None:
            metrics |= results.prefixed(metric_key_prefix, self.compute_metrics(outputs))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def run_rows(
        self, dataset: Any, prefix: str, generate: bool = False
    ) -> tuple[dict[str, float], list[list[Any]]]:
        """Loss of all rows and output for each, on any number of processes; see `results.combine`."""
        if not self.accelerator._models:
            self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model.eval()
        args, began, outcomes = self.args, time.perf_counter(), []
        for batch_rows in batching.evaluation_batches(data.lengths(dataset), args, args.world_size):
            self.stop.check(gather_object([self.stop.number]))
            rows = batching.share(batch_rows, args.process_index, args.world_size)
            if not len(rows):
                continue
            batch = loading.as_tensors(self.collate(dataset[rows]), args.device)
            labels, loss, targets, outputs = batch.pop("labels", None), 0.0, 0, None
            if labels is not None or self.generation is None:
                logits = self.model(**batch).logits
            if labels is not None:
                loss, targets = self.summed_loss(logits, labels).item(), (labels != -100).sum().item()
            if self.generation is None:
                outputs = logits.float().tolist()
            elif generate:
                source = {name: batch[name] for name in ("input_ids", "attention_mask")}
                outputs = self.model.generate(**source, **self.generation).tolist()
            outcomes.append((rows.tolist(), loss, targets, outputs))
        return results.combine(gather_object(outcomes), prefix, time.perf_counter() - began)

    # Checkpoints

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing about tied weights, which are stored once."""
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        load_result.missing_keys[:] = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Without the token in `training_args.bin`, which is shared more easily than a password."""
        token, self.args.hub_token = self.args.hub_token, None
        super()._save(output_dir, state_dict)
        self.args.hub_token = token
        configs.save_tokenizer(self.processing_class, output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """The Trainer's own checkpoint with the state of the run, written aside by all processes and then
        given its place by the first."""
        output_dir, step = self.args.output_dir, self.state.global_step
        aside = Path(output_dir) / f"{checkpoints.UNFINISHED}checkpoint-{step}"
        with checkpoints.writing(output_dir, step) if self.args.should_save else nullcontext(aside) as folder:
            self.accelerator.wait_for_everyone()
            self._run_dir = str(folder)
            super()._save_checkpoint(model, trial)
            self._run_dir = str(output_dir)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                theirs = checkpoints.of_step(folder, step)
                for path in theirs.iterdir():
                    shutil.move(path, folder)
                theirs.rmdir()
                self.run_state.save(folder)
        if self.args.should_save:
            checkpoints.rotate(output_dir, self.save_total_limit, self.run_state.best_step)
            hub.push_checkpoint(self.repository, step)

    def _get_output_dir(self, trial: Any) -> str:
        return self._run_dir


class Ended(Exception):
    """The run has come to its end before the Trainer's loop has begun."""


class Watch(TrainerCallback):
    """What the explicit loops do at the start of training and of each step."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if self.trainer.run_state.evaluation_due(self.trainer.plan):  # a signal had cut it short
            self.trainer.evaluate_and_save()
            if self.trainer.run_state.ended(self.trainer.plan, args):
                raise Ended

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        optimization.seed_step(args.seed, state.global_step + 1, args.process_index)
        self.trainer.step_loss = 0.0
