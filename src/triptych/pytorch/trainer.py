"""The Hugging Face Trainer with the batches, evaluation, schedule and checkpoints that every form shares."""

import itertools
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from triptych import batching, hub, libraries, schedule
from triptych.errors import InputError
from triptych.models import tokenizers
from triptych.output import checkpoints, reporting
from triptych.pytorch import loading, optimization, saving
from triptych.pytorch.devices import World
from triptych.run.evaluation import Evaluation
from triptych.run.training import Training

# The private methods of transformers that are called or overridden; tests/pytorch/test_private.py names each,
# and refuses others here and in the rest of this folder.
PRIVATE = {
    Seq2SeqTrainer: (
        *("_evaluate", "_get_output_dir", "_load_from_checkpoint", "_maybe_log_save_evaluate"),
        *("_save", "_save_checkpoint"),
    )
}


class Trainer(Seq2SeqTrainer):
    """A Seq2SeqTrainer that trains, evaluates and saves as the explicit loops do.

    Args:
        training: the run.
        world: its processes.
        raw, features: rows by split, and what `preprocess` made of them.
        collate: `(columns of rows, draws) -> arrays`.
        targets: names of the arrays that the loss is summed over.
        count_targets: `(batch) -> number of targets`.
        summed_loss: `(model, batch, label_smoothing) -> sum of the loss over the targets, outputs`.
        answers: `(model, batch, outputs) -> an answer for each row`.
        score: `(answers, raw rows) -> metrics`.
    """

    def __init__(
        self,
        *,
        training: Training,
        world: World,
        raw: dict[str, Any],
        features: dict[str, Any],
        collate: batching.Collate,
        targets: Collection[str],
        count_targets: Callable,
        summed_loss: Callable,
        answers: Callable,
        score: Callable,
        **trainer_arguments: Any,
    ):
        libraries.require_private("transformers", PRIVATE)
        self.training, self.world = training, world
        self.raw, self.features, self.collate, self.targets = raw, features, collate, targets
        self.count_targets, self.summed_loss = count_targets, summed_loss
        self.answers, self.score = answers, score
        args = training.args
        generates = training.data_args.generates and (args.predict_with_generate or args.do_predict)
        if world.device.type == "xla" and generates:
            raise InputError(
                "An XLA device compiles a program for each length that is generated: leave out "
                "--predict_with_generate and --do_predict, and use the model elsewhere afterwards."
            )
        if args.neftune_noise_alpha is not None and trainer_arguments["model"].config.is_encoder_decoder:
            raise InputError(
                "--neftune_noise_alpha: the Trainer adds the noise to an embedding that no encoder-decoder "
                "calls: each half has its own. Leave it out."
            )
        # What the package does, the Trainer is not to do as well: pushing, and reporting to these trackers.
        args.push_to_hub = False
        args.report_to = [name for name in args.report_to if name not in reporting.TRACKERS]
        # A `compute_loss_func` tells the Trainer that the loss is divided by the targets of the whole step.
        super().__init__(
            args=args,
            compute_loss_func=self.compute_loss,
            train_dataset=features.get("train"),
            eval_dataset=features.get("validation"),
            **trainer_arguments,
        )
        # With a limit, the Trainer would remove checkpoints by a rule of its own, even the newest one.
        self.save_total_limit, self.args.save_total_limit = self.args.save_total_limit, None
        self._run_dir = self.args.output_dir
        # Whether training, or an evaluation, has put the model on its device and set its precision
        self.is_prepared = False
        for theirs in (ProgressCallback, PrinterCallback):
            self.remove_callback(theirs)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        return loading.epoch_loader(self.features["train"], self.collate, self.targets, self.args)

    def train_to_the_end(self) -> None:
        """Trains, from the run's checkpoint if there is one, and saves the model.

        Raises:
            signals.Stopped: after a signal, with a checkpoint saved.
        """
        training, args, checkpoint = self.training, self.args, self.training.state.checkpoint
        with training.stoppable(then=lambda: self._save_checkpoint(self.model_wrapped, None)):
            if checkpoint and training.ended():
                saving.load_weights(checkpoint, self.model)
            else:
                self.add_callback(Watch(self))
                with suppress(Ended):
                    self.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        saving.load_best(training, self.model)
        place = checkpoints.replacing(args.output_dir) if args.should_save else nullcontext(args.output_dir)
        with place as folder:
            self.save_model(str(folder))

    def _maybe_log_save_evaluate(
        self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, learning_rate=None
    ) -> None:
        """Does what the explicit loops do after a step. The plan of the run decides what is due, instead of
        the Trainer's flow of control."""
        training, step = self.training, self.state.global_step
        if training.step == step:
            return  # The Trainer calls this again at the end of an epoch.
        (loss,) = self.world.sum([self.step_loss])
        loss, norm = loss / self.world.processes, float(grad_norm or 0)
        if entry := training.stepped(loss, learning_rate, norm, self.step_tokens):
            self.log(entry)  # for the Trainer's reporters
        self.evaluate_and_save()
        self.control.should_training_stop = training.ended()

    def evaluate_and_save(self) -> None:
        """Does what is due after the last step."""
        training, is_best = self.training, False
        if training.evaluation_due():
            is_best = training.evaluated(self._evaluate(None, None))
        if training.saves(is_best):
            self._save_checkpoint(self.model_wrapped, None)

    # Steps

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.step_loss, self.step_tokens, self.is_prepared = 0.0, 0, True
        return super().create_optimizer(model)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        return [name for name, parameter in model.named_parameters() if schedule.decays(parameter.shape)]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None and self.args.lr_scheduler_type not in schedule.ADAPTIVE:
            rates = schedule.learning_rates(self.args, num_training_steps) / self.args.learning_rate
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: float(rates[step])
            )
        return self.lr_scheduler or super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, int]:
        batches = list(itertools.islice(epoch_iterator, num_batches))
        counts = [sum(map(self.count_targets, batches)), sum(map(batching.tokens, batches))]
        targets, self.step_tokens = map(int, self.world.sum(counts))
        return batches, self.training.divisor(targets)

    def compute_loss(
        self, model: Any, inputs: dict, return_outputs: bool = False, num_items_in_batch: int | None = None
    ) -> Any:
        """A batch's part of the mean loss over the targets of the whole step. The Trainer's own method would
        conclude from the **kwargs of T5 and BART that they divide their loss by that number; they do not."""
        loss, outputs = self.summed_loss(model, inputs, self.args.label_smoothing_factor)
        loss = loss * self.world.processes / num_items_in_batch  # DDP averages gradients over the processes
        return (loss, outputs) if return_outputs else loss

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
        """Metrics of `eval_dataset`, which is one of the features, or of the validation rows."""
        split = next((name for name, rows in self.features.items() if rows is eval_dataset), "validation")
        metrics, _ = self.evaluate_split(split, metric_key_prefix)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def evaluate_split(self, split: str, prefix: str) -> tuple[dict[str, float], list[Any]]:
        """Metrics of all rows of a split, and an answer for each row in order: `evaluate` of the loops that
        are written out."""
        if not self.is_prepared:
            self.model_wrapped = self.accelerator.prepare_model(self.model, evaluation_mode=True)
            self.is_prepared = True
        self.model.eval()
        evaluation = Evaluation(prefix, self.training)
        for rows, batch in evaluation.batches(self.features[split], self.collate, self.targets):
            placed = self.world.put(batch)
            loss, outputs = self.summed_loss(self.model, placed)
            found = self.answers(self.model, placed, outputs) if evaluation.wants_answers else None
            evaluation.add(rows, loss.item(), self.count_targets(batch), found)
        return evaluation.result(self.score, self.raw[split])

    # Checkpoints

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        """Fills the model by the names that files have. The Trainer's own method takes them for those of the
        modules, and leaves a model where they differ, such as a ViT, with the weights that it began with."""
        saving.load_weights(Path(resume_from_checkpoint), model or self.model)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Keeps the token out of `training_args.bin`, which people share more easily than a password."""
        token, self.args.hub_token = self.args.hub_token, None
        super()._save(output_dir, state_dict)
        self.args.hub_token = token
        if self.args.should_save:  # The Trainer calls this in every process.
            tokenizers.save(self.processing_class, output_dir or self.args.output_dir)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Writes the Trainer's own checkpoint with the state of the run. All processes write it aside; then
        the first gives it its place."""
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
                self.training.state.save(folder)
        if self.args.should_save:
            checkpoints.rotate(output_dir, self.save_total_limit, self.training.state.best_step)
            hub.push_checkpoint(self.training.repository, step)

    def _get_output_dir(self, trial: Any) -> str:
        return self._run_dir


class Ended(Exception):
    """The run has come to its end before the Trainer's loop has begun."""


class Watch(TrainerCallback):
    """What the explicit loops do at the start of training and of each step."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        training = self.trainer.training
        if training.evaluation_due():  # A signal has cut this evaluation short.
            self.trainer.evaluate_and_save()
            if training.ended():
                raise Ended

    def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        optimization.seed_step(args.seed, state.global_step, args.process_index)
        self.trainer.step_loss = 0.0
