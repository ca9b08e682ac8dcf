"""A run's model and optimizer to and from folders; all processes call what gathers arrays."""

from pathlib import Path
from typing import Any

from flax import nnx

from triptych import hub
from triptych.flax import conversion, devices, optimization
from triptych.models import tensor_files, tokenizers
from triptych.output import checkpoints
from triptych.run.training import Training


def save_checkpoint(
    training: Training,
    model: nnx.Module,
    config: Any,
    generation_config: Any,
    optimizer_state: Any,
    tokenizer: Any,
) -> None:
    """Writes `checkpoint-<step>`, removes those beyond `--save_total_limit`, and pushes it if asked for."""
    args, state = training.args, training.state
    tensors, optimizer_state = devices.whole((nnx.state(model), optimizer_state))
    if training.world.process == 0:
        with checkpoints.writing(args.output_dir, state.step) as folder:
            save_model(folder, model, tensors, config, generation_config, tokenizer)
            optimization.save_state(folder, optimizer_state)
            state.save(folder)
        checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
        hub.push_checkpoint(training.repository, state.step)


def restore(training: Training, parameters: Any, optimizer_state: Any) -> tuple[Any, Any]:
    """Parameters and state of the optimizer, placed as the given ones are, from the checkpoint that the run
    continues, if it does: one of any form that writes its loop out."""
    if not (checkpoint := training.state.checkpoint):
        return parameters, optimizer_state
    return load_parameters(checkpoint, parameters), optimization.load_state(checkpoint, optimizer_state)


def best(training: Training, parameters: Any) -> Any:
    """With `--load_best_model_at_end` the parameters of the best checkpoint, else the given ones."""
    args, best_step = training.args, training.state.best_step
    if not (args.load_best_model_at_end and best_step):
        return parameters
    training.world.gather([])  # A barrier: the first process may still be writing that checkpoint.
    return load_parameters(checkpoints.of_step(args.output_dir, best_step), parameters)


def save_result(
    training: Training, model: nnx.Module, config: Any, generation_config: Any, tokenizer: Any
) -> None:
    """Puts the trained model into the output folder."""
    tensors = devices.whole(nnx.state(model))
    if training.world.process == 0:
        with checkpoints.replacing(training.args.output_dir) as folder:
            save_model(folder, model, tensors, config, generation_config, tokenizer)


def save_model(
    folder: Path, model: nnx.Module, tensors: Any, config: Any, generation_config: Any, tokenizer: Any
) -> None:
    """Writes a model with the values of `tensors`, and its tokenizer."""
    model = nnx.merge(nnx.graphdef(model), tensors)
    conversion.save(model, config, folder, generation_config)
    tokenizers.save(tokenizer, folder)


def load_parameters(folder: Path, parameters: Any) -> Any:
    """The parameters of a run's checkpoint, of the structure of `parameters` and placed as they are."""
    tensors = tensor_files.read_model(folder)
    names = {name for name, _, _ in conversion.named_leaves(parameters)}
    return conversion.from_numpy({name: tensors[name] for name in names & tensors.keys()}, parameters)
