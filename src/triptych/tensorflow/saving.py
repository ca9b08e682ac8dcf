"""A run's model and optimizer to and from folders."""

from typing import Any

from triptych import hub
from triptych.models import tokenizers
from triptych.output import checkpoints
from triptych.run.training import Training
from triptych.tensorflow import conversion, optimization
from triptych.tensorflow.architectures import Model


def save_checkpoint(
    training: Training, model: Model, generation_config: Any, optimizer: Any, tokenizer: Any
) -> None:
    """Writes `checkpoint-<step>`, removes those beyond `--save_total_limit`, and pushes it if asked for."""
    args, state = training.args, training.state
    if training.world.process == 0:
        with checkpoints.writing(args.output_dir, state.step) as folder:
            conversion.save(model, folder, generation_config)
            tokenizers.save(tokenizer, folder)
            optimization.save_state(folder, optimizer, model)
            state.save(folder)
        checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
        hub.push_checkpoint(training.repository, state.step)


def restore(training: Training, model: Model, optimizer: Any) -> None:
    """Fills model and optimizer from the checkpoint that the run continues, if it does: one of any form that
    writes its loop out."""
    if checkpoint := training.state.checkpoint:
        conversion.restore(model, checkpoint)
        optimization.load_state(checkpoint, optimizer, model)


def save_result(training: Training, model: Model, generation_config: Any, tokenizer: Any) -> None:
    """Puts the trained model into the output folder: with `--load_best_model_at_end` the best one, which
    `model` then is as well."""
    args, best_step = training.args, training.state.best_step
    if args.load_best_model_at_end and best_step:
        training.world.gather([])  # A barrier: the first process may still be writing that checkpoint.
        conversion.restore(model, checkpoints.of_step(args.output_dir, best_step))
    if training.world.process == 0:
        with checkpoints.replacing(args.output_dir) as folder:
            conversion.save(model, folder, generation_config)
            tokenizers.save(tokenizer, folder)
