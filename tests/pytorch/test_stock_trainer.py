"""Why the Trainer form has its own loss: with T5 and BART the Trainer of transformers multiplies it by the
accumulation.

Whoever sees the first test fail may rejoice: transformers has been mended, and `Trainer.compute_loss` can go.
"""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import all_forms
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

ROWS = 8


@pytest.fixture(scope="module")
def rows(tiny):
    """Rows of one length, which need no padding; targets of several, which share out a mean unevenly."""
    tokenizer = AutoTokenizer.from_pretrained(tiny / "t5")
    draw = np.random.default_rng(0)
    sources = draw.integers(3, len(tokenizer), (ROWS, 20))
    labels = np.where(
        np.arange(12) < draw.integers(2, 13, (ROWS, 1)), draw.integers(3, len(tokenizer), (ROWS, 12)), -100
    )
    return [
        {"input_ids": source.tolist(), "attention_mask": [1] * 20, "labels": target.tolist()}
        for source, target in zip(sources, labels, strict=True)
    ]


def first_step(trainer_class, folder, tiny, kind, rows, size, accumulation):
    """Loss and gradient norm of one step of plain gradient descent, and the update that it made."""
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny / kind)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = trainer_class(model=model, args=args, train_dataset=rows)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    largest = max((weights - before[name]).abs().max().item() for name, weights in model.state_dict().items())
    return entry["loss"], largest


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_stock_trainer_multiplies_the_loss_by_the_accumulation(kind, tiny, rows, tmp_path):
    whole_loss, whole_update = first_step(Seq2SeqTrainer, tmp_path, tiny, kind, rows, 8, 1)
    cut_loss, cut_update = first_step(Seq2SeqTrainer, tmp_path, tiny, kind, rows, 2, 4)
    assert cut_loss / whole_loss == pytest.approx(4, rel=0.05)
    assert cut_update / whole_update == pytest.approx(4, rel=0.3)


def scripts_of_tokens():
    """Those in PyTorch whose loss is over tokens."""
    forms = [form for form in all_forms() if form.framework == "pytorch"]
    return [form for form in forms if form.settings["tests"].get("generates")]


@pytest.fixture(params=scripts_of_tokens(), ids=str)
def script(request):
    """A script of the manifest as a module, whose main() does not run."""
    specification = importlib.util.spec_from_file_location(
        f"script_{request.param.name.replace('-', '_')}", request.param.script
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def loss_of(script, logits, labels, label_smoothing=0.0):
    """The script's loss of a model that answers with `logits`."""

    def model(**inputs):
        return SimpleNamespace(logits=logits)

    batch = dict.fromkeys(("input_ids", "attention_mask", "decoder_input_ids", "labels"), labels)
    return script.summed_loss(model, batch, label_smoothing)[0]


def test_scripts_loss_is_a_sum_over_the_real_tokens(script):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 11), torch.randint(0, 11, (3, 5))
    labels[0, 2:] = labels[2, 4:] = -100
    total, count = 0.0, 0
    for row in range(3):
        for column in range(5):
            if labels[row, column] != -100:
                total -= torch.log_softmax(logits[row, column], -1)[labels[row, column]].item()
                count += 1
    assert count == 11
    assert loss_of(script, logits, labels).item() == pytest.approx(total, rel=1e-6)
    assert loss_of(script, logits.bfloat16(), labels).dtype == torch.float32
    parts = [loss_of(script, logits[row : row + 1], labels[row : row + 1]).item() for row in range(3)]
    assert sum(parts) == pytest.approx(total, rel=1e-6)


def test_scripts_label_smoothing_is_that_of_the_trainer(script):
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 5, 11), torch.randint(0, 11, (3, 5))
    labels[0, 2:] = -100
    mean = LabelSmoother(epsilon=0.1)({"logits": logits}, labels.clone())
    ours = loss_of(script, logits, labels, 0.1) / (labels != -100).sum()
    assert ours.item() == pytest.approx(mean.item(), rel=1e-6)
    assert ours.item() != pytest.approx(
        cross_entropy(logits.flatten(0, 1), labels.flatten()).item(), rel=1e-3
    )
