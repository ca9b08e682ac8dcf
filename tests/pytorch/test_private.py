"""What is used of transformers and not public: that it is still there and called as it was, and that nothing
else is used."""

import ast
import inspect
from inspect import Parameter

import private_uses
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Seq2SeqTrainer,
)
from transformers import Trainer as PlainTrainer
from transformers.modeling_layers import GradientCheckpointingLayer

from triptych.pytorch.trainer import PRIVATE, Trainer

FILE = private_uses.PACKAGE / "pytorch/trainer.py"
# The parameters that the Trainer's own calls have, after self
PARAMETERS = {
    "_evaluate": ["trial", "ignore_keys_for_eval"],
    "_get_output_dir": ["trial"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_maybe_log_save_evaluate": [
        *("tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval", "start_time"),
        "learning_rate",
    ],
    "_save": ["output_dir", "state_dict"],
    "_save_checkpoint": ["model", "trial"],
}
# Where the Trainer calls what is overridden
CALLED_IN = {
    "_get_output_dir": "_save_checkpoint",
    "_load_from_checkpoint": "train",
    "_maybe_log_save_evaluate": "_run_epoch",
    "_save": "save_model",
    "compute_loss": "training_step",
    "evaluate": "_evaluate",
    "get_batch_samples": "_run_epoch",
    "save_model": "_save_checkpoint",
    "training_step": "_run_epoch",
}


def test_nothing_private_is_used_outside_the_table():
    listed = set(PRIVATE[Seq2SeqTrainer])
    assert len(PRIVATE) == 1
    assert private_uses.outside("pytorch", FILE, listed) == []
    text = FILE.read_text()
    used = {
        use.partition(": ")[2] for use in private_uses.uses(text, private_uses.names_made(ast.parse(text)))
    }
    overridden = {name.removeprefix("Trainer.") for name in private_uses.overridden("pytorch")}
    assert used - overridden == {"_evaluate"}
    assert overridden == listed - {"_evaluate"}


@pytest.mark.parametrize("name", PRIVATE[Seq2SeqTrainer])
def test_private_method_takes_what_it_took(name):
    parameters = list(inspect.signature(getattr(Seq2SeqTrainer, name)).parameters)[1:]
    assert parameters[: len(PARAMETERS[name])] == PARAMETERS[name]


def test_override_takes_what_the_trainer_gives():
    common = [name for name in vars(Trainer) if hasattr(Seq2SeqTrainer, name) and not name.startswith("__")]
    assert len(common) > 12
    for name in common:
        ours, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (Trainer, Seq2SeqTrainer))
        if all(parameter.kind != Parameter.VAR_POSITIONAL for parameter in ours.values()):
            plain = [key for key, value in theirs.items() if value.kind != Parameter.VAR_KEYWORD]
            assert list(ours)[: len(plain)] == plain, name


@pytest.mark.parametrize(("name", "caller"), CALLED_IN.items())
def test_override_is_still_called(name, caller):
    """An override of what is not called any more would be silent."""
    assert f"self.{name}(" in inspect.getsource(getattr(PlainTrainer, caller))


@pytest.mark.parametrize(
    ("kind", "auto_class", "count"),
    [
        ("t5", AutoModelForSeq2SeqLM, 12),
        ("mbart", AutoModelForSeq2SeqLM, 24),
        ("roberta", AutoModelForSequenceClassification, 12),
        ("distilbert", AutoModelForSequenceClassification, 6),
        ("xlm-roberta", AutoModelForTokenClassification, 12),
        ("gpt2", AutoModelForCausalLM, 12),
    ],
)
def test_blocks_that_are_split_over_processes_are_the_layers(kind, auto_class, count):
    with torch.device("meta"):
        model = auto_class.from_config(AutoConfig.for_model(kind))
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert len(blocks) == count
    within = [part for block in blocks for part in block.modules() if part is not block]
    assert not any(isinstance(part, GradientCheckpointingLayer) for part in within)
