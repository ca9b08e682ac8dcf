"""The scale of the loss in float16 is continued, too."""

from types import SimpleNamespace

import torch
from torch import nn

from triptych.arguments import TrainingArguments
from triptych.output import checkpoints
from triptych.pytorch import saving
from triptych.run.state import RunState


class Model(nn.Linear):
    def save_pretrained(self, folder, state_dict):
        from safetensors.torch import save_file

        save_file(state_dict, folder / "model.safetensors")


class Tokenizer:
    backend_tokenizer = None

    def save_pretrained(self, folder):
        pass


def run_with_scale(folder, state, **scale):
    """A run in float16: the scaler works on a CPU, too, where the scripts refuse it."""
    model = Model(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.scaler = torch.amp.GradScaler("cpu", **scale)  # as Accelerate's optimizer has it
    args = TrainingArguments(output_dir=str(folder))
    training = SimpleNamespace(args=args, state=state, world=SimpleNamespace(process=0), repository=None)
    return training, model, optimizer


def test_a_continued_run_scales_its_loss_as_the_one_that_was_stopped(tmp_path):
    training, model, optimizer = run_with_scale(tmp_path, RunState(step=3), init_scale=8.0, growth_interval=5)
    for _ in range(6):  # grows once, and is one step on the way to the next time
        optimizer.scaler.scale(model(torch.ones(1, 2)).sum()).backward()
        optimizer.scaler.step(optimizer)
        optimizer.scaler.update()
    saving.save_checkpoint(training, model, optimizer, Tokenizer())

    state = RunState.load(checkpoints.of_step(tmp_path, 3))
    assert state.loss_scale == [16.0, 1]
    continued = run_with_scale(tmp_path, state, init_scale=2.0, growth_interval=5)
    saving.restore(*continued)
    restored = continued[2].scaler.state_dict()
    assert (restored["scale"], restored["_growth_tracker"], restored["growth_interval"]) == (16.0, 1, 5)
