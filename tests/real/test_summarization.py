"""A model of true size on real text, for `make test-real`: t5-small's shape with random weights, 20 steps in
every form. Beside the losses it notes time and memory, and prints the table that stands in the READMEs.
"""

import json

import pytest
from harness import flags, once, run_python
from measuring import largest_difference, losses, measure, print_table

STEPS = 20
TABLE = (
    *("form", "first loss", "last loss", "largest difference"),
    *("start and end, s", "training, s", "tokens/s", "evaluation, s", "memory, GB"),
)
MAKE_MODEL = """
import sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
config = transformers.T5Config(dropout_rate=0, decoder_start_token_id=tokenizer.pad_token_id)
torch.manual_seed(1)
transformers.T5ForConditionalGeneration(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Docstrings of the standard library, and a model of t5-small's shape with 32,128 tokens."""

    def build(folder):
        run_python("-m", "triptych.samples", "docstrings", folder)
        text = ["--files", folder / "train.jsonl", "--vocab_size", "8000"]
        run_python("-m", "triptych.samples", "tokenizer", folder / "tokenizer", *text)
        run_python("-c", MAKE_MODEL, folder / "tokenizer", folder / "model")

    return once(tmp_path_factory.getbasetemp() / "real", build)


@pytest.mark.timeout(3600)
def test_every_form_trains_the_true_shape_alike(real, forms, tmp_path, capsys):
    words = flags(
        model_name_or_path=real / "model",
        train_file=real / "train.jsonl",
        validation_file=real / "validation.jsonl",
        do_train=True,
        do_eval=True,
        predict_with_generate=True,
        max_eval_samples=16,
        max_source_length=512,
        max_target_length=32,
        per_device_train_batch_size=8,
        max_train_samples=8 * STEPS,
        max_steps=STEPS,
        learning_rate=5e-5,
        warmup_steps=5,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    rows, curves = [], {}
    runs = [(form.name, form) for form in forms if form.task == "summarization"]
    # Once more with the programs that were compiled before
    runs += [(f"{name}, compiled before", form) for name, form in runs if form.framework == "flax"]
    for name, form in runs:
        folder = tmp_path / name
        folder.mkdir()
        output, seconds, memory = measure(form, words, folder)
        trained = json.loads((output / "train_results.json").read_text())
        evaluated = json.loads((output / "eval_results.json").read_text())["eval_runtime"]
        curve = curves[name] = losses(output)
        difference = largest_difference(curve, next(iter(curves.values())))
        runtime = trained["train_runtime"]
        figures = (curve[0], curve[-1], difference, seconds - runtime - evaluated, runtime)
        others = (trained["train_tokens_per_second"], evaluated, memory)
        rows.append([name, *(f"{value:.4g}" for value in figures + others)])
    print_table(TABLE, rows, capsys)
    assert all(float(row[3]) <= 1e-4 for row in rows), "the forms do not train alike: see the table"
    for name, curve in curves.items():
        assert curve[-1] < curve[0], name
