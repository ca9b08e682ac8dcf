"""Writes a run's model and optimizer to folders and reads them: safetensors under the names that parameters
have in files.

Gathering parameters that are sharded is a collective: all processes have to call what gathers.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import nn

from triptych import hub
from triptych.errors import RunError
from triptych.models import tensor_files, tokenizers
from triptych.output import checkpoints
from triptych.pytorch import names
from triptych.pytorch.devices import part_of, whole
from triptych.run.training import Training


def save_checkpoint(
    training: Training, model: nn.Module, optimizer: torch.optim.Optimizer, tokenizer: Any
) -> None:
    """Writes `checkpoint-<step>`, removes those beyond `--save_total_limit`, and pushes it if asked to."""
    args, state = training.args, training.state
    if scaler := getattr(optimizer, "scaler", None):  # of Accelerate's optimizer, with --fp16
        scale = scaler.state_dict()
        state.loss_scale = [scale["scale"], scale["_growth_tracker"]]
    tensors, moments = gather_weights(model), gather_optimizer(model, optimizer)
    if training.world.process == 0:
        with checkpoints.writing(args.output_dir, state.step) as folder:
            model.save_pretrained(folder, state_dict=tensors)
            tokenizers.save(tokenizer, folder)
            save_file(moments, folder / tensor_files.OPTIMIZER)
            state.save(folder)
        checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
        hub.push_checkpoint(training.repository, state.step)


def restore(training: Training, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fills model and optimizer from the checkpoint that the run continues, if it continues one. Any form
    that writes its loop out may have written it."""
    if checkpoint := training.state.checkpoint:
        load_weights(checkpoint, model)
        load_optimizer(checkpoint, model, optimizer)
    scaler, kept = getattr(optimizer, "scaler", None), training.state.loss_scale
    if scaler and kept:
        scaler.load_state_dict(scaler.state_dict() | {"scale": kept[0], "_growth_tracker": int(kept[1])})


def save_result(training: Training, model: nn.Module, tokenizer: Any) -> None:
    """Writes the trained model into the output folder. With `--load_best_model_at_end` it is the best one,
    with which `model` is filled."""
    load_best(training, model)
    tensors = gather_weights(model)
    if training.world.process == 0:
        with checkpoints.replacing(training.args.output_dir) as folder:
            model.save_pretrained(folder, state_dict=tensors)
            tokenizers.save(tokenizer, folder)


def load_best(training: Training, model: nn.Module) -> None:
    """With `--load_best_model_at_end`, fills a model from the best checkpoint."""
    args, best_step = training.args, training.state.best_step
    PartialState().wait_for_everyone()  # The first process may still be writing that checkpoint.
    if args.load_best_model_at_end and best_step:
        load_weights(checkpoints.of_step(args.output_dir, best_step), model)


def gather_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state in whole tensors, as `save_pretrained` takes it; tied parameters stay one tensor."""
    state = model.state_dict(keep_vars=True)
    wholes = {id(tensor): whole(tensor.detach()).cpu() for tensor in state.values()}
    return {name: wholes[id(tensor)] for name, tensor in state.items()}


def gather_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state: of AdamW `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`."""
    parameters, found = dict(model.named_parameters(remove_duplicate=False)), {}
    for name, parts in names.in_files(model).items():
        states = [
            optimizer.state[parameters[part]] for part in parts if parameters.get(part) in optimizer.state
        ]
        for key in states[0] if states else ():
            values = [torch.as_tensor(state[key]).detach() for state in states if state[key] is not None]
            if values:
                wholes = [whole(value).cpu() for value in values]
                found[f"{key}.{name}"] = torch.cat(wholes) if wholes[0].dim() else wholes[0]
    return found


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fills the optimizer's state from a checkpoint's `optimizer.safetensors`."""
    parameters, moments = (
        dict(model.named_parameters(remove_duplicate=False)),
        dict[str, dict[str, torch.Tensor]](),
    )
    for key, value in load_file(folder / tensor_files.OPTIMIZER).items():
        kind, _, name = key.partition(".")
        moments.setdefault(kind, {})[name] = value
    for kind, values in moments.items():
        for name, value in names.parts(model, values).items():
            parameter = parameters[name]
            # torch keeps the number of steps on the CPU, unless the optimizer is fused.
            if value.dim() == 0:
                value = value.clone().to(parameter.device if optimizer.defaults.get("fused") else "cpu")
            optimizer.state[parameter][kind] = part_of(value, parameter) if value.dim() else value


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fills a model from a checkpoint's `model.safetensors`, in which tied weights are stored once.

    Raises:
        RunError: if the file has other names than the model.
    """
    own, filled = model.state_dict(keep_vars=True), set()
    stored = names.parts(model, load_file(folder / tensor_files.MODEL))
    with torch.no_grad():
        for name in own.keys() & stored.keys():
            own[name].copy_(part_of(stored[name], own[name]))
            filled.add(id(own[name]))
    strange = {name for name, tensor in own.items() if id(tensor) not in filled} | stored.keys() - own.keys()
    if strange:
        raise RunError(f"{folder}: is not of this model, to judge by {', '.join(sorted(strange)[:5])}.")
