"""Real text and code, for `make test-real`: files of Python's standard library, learnt from scratch in
minutes in every form, beside what counts of bytes and a compressor make of the same files."""

import json

import pytest
from harness import flags, run_python
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
