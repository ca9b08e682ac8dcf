"""Real text and code, for `make test-real`: files of Python's standard library, learnt from scratch in
minutes in every form, beside what counts of bytes and a compressor make of the same files. And SmolLM2-135M's
and Qwen3-0.6B's shapes with random weights, beside the stock Trainer and the machine's limit."""

import json
import subprocess
import sys

import pytest
from harness import ROOT, flags, run_python
from measuring import largest_difference, learn, print_table

from triptych.metrics import byte_models

SHAPE = (
    "hidden_size=160,intermediate_size=448,num_hidden_layers=3,num_attention_heads=4,num_key_value_heads=4"
)
SHAPE += ",max_position_embeddings=1024,tie_word_embeddings=true,attention_dropout=0.0"
STEPS = 800
TABLE = (
    "model",
    "bits per byte",
    "perplexity",
    "accuracy",
    "largest difference",
    "CPU seconds",
    "memory, GB",
)


@pytest.mark.timeout(4 * 3600)
def test_small_models_foresee_code_better_than_counts_of_bytes_and_alike_in_every_form(
    forms, tmp_path, capsys
):
    library, tokenizer = tmp_path / "library", tmp_path / "tok"
    run_python("-m", "triptych.samples", "library", library)
    text = ["--files", library / "train.jsonl", "--columns", "text", "--vocab_size", "4000"]
    run_python("-m", "triptych.samples", "tokenizer", tokenizer, *text)
    words = flags(
        model_type="llama",
        config_overrides=SHAPE,
        tokenizer_name=tokenizer,
        train_file=library / "train.jsonl",
        validation_file=library / "validation.jsonl",
        do_train=True,
        do_eval=True,
        block_size=256,
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=4e-3,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    writers = [form for form in forms if form.task == "causal-language-modeling"]
    learnt = {form.name: learn(form, words, tmp_path / form.name) for form in writers}
    first, table = learnt[writers[0].name], []
    for name, run in learnt.items():
        scores = [run.results[f"eval_{metric}"] for metric in ("bits_per_byte", "perplexity", "accuracy")]
        difference = largest_difference(run.losses[:50], first.losses[:50]) if run is not first else None
        table.append([name, *scores, difference, run.seconds, run.memory])
    known, held_out = (
        [json.loads(line)["text"] for line in (library / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation")
    )
    counts = byte_models.Counts(known).bits_per_byte(held_out)
    baselines = {
        f"counts of {byte_models.ORDER} bytes": counts,
        "xz": byte_models.compressed(held_out),
        "xz behind the training files": byte_models.compressed(held_out, known),
    }
    table += [[name, value, *5 * [None]] for name, value in baselines.items()]
    print_table(TABLE, table, capsys)
    scores = [run.results["eval_bits_per_byte"] for run in learnt.values()]
    assert max(scores) / min(scores) < 1.01, "the forms do not learn alike"
    assert max(scores) < counts


@pytest.mark.timeout(4 * 3600)
def test_every_form_trains_true_shapes_alike(forms, capsys):
    """A part of the benchmarks, which keeps speed and memory in build/bench/table.md."""
    frameworks = ",".join({form.framework: None for form in forms})
    command = [sys.executable, ROOT / "benchmarks/bench.py", "--repetitions", "1", "--parts", "decoders"]
    done = subprocess.run([*command, "--frameworks", frameworks], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((ROOT / "build/bench/results.json").read_text())
    for shape in ("SmolLM2-135M", "Qwen3-0.6B"):
        curves = {name: found[0]["losses"] for name, found in results[f"decoders, {shape}"].items()}
        curves.pop("stock", None)  # whose rows are others
        first = next(iter(curves.values()))
        assert len(first) == 6
        for name, losses in curves.items():
            assert losses == pytest.approx(first, rel=1e-4), (shape, name)
    with capsys.disabled():
        print((ROOT / "build/bench/table.md").read_text())
