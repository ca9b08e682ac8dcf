"""A translator learnt from scratch on real text, for `make test-real`: a small T5 and the German messages of
the programs on this machine, in every form, until it does better than copying the source."""

import json

import pytest
from harness import flags, run_python
from measuring import largest_difference, learn, print_table

from triptych import metrics

WORDS = 8  # the most of a message; short ones are most of them, and learnt first
STEPS, ROWS = 4000, 64
# By PyTorch, so that all forms start from the same weights
MAKE_MODEL = """
import sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
shape = dict(d_model=128, d_ff=512, d_kv=32, num_heads=4, num_layers=2, dropout_rate=0)
start = tokenizer.pad_token_id
config = transformers.T5Config(vocab_size=len(tokenizer), decoder_start_token_id=start, **shape)
torch.manual_seed(1)
transformers.T5ForConditionalGeneration(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""
TABLE = ("form", "BLEU", "chrF", "loss", "largest difference", "CPU minutes", "memory, GB")


def pairs_of(path):
    """Sources and targets of a file."""
    pairs = [json.loads(line)["translation"] for line in path.open(encoding="utf-8")]
    return [pair["en"] for pair in pairs], [pair["de"] for pair in pairs]


@pytest.fixture(scope="session")
def short_messages(tmp_path_factory):
    """Messages of a few words that are not the same in both languages, of which no source is in two files,
    and a model of 1.3M parameters with a tokenizer for them."""
    folder = tmp_path_factory.mktemp("messages")
    run_python("-m", "triptych.samples", "messages", folder / "all", "--languages", "en,de")
    for split in ("train", "test"):
        rows = (folder / "all" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        texts = [json.loads(row)["translation"].values() for row in rows]
        short = [
            row
            for row, both in zip(rows, texts, strict=True)
            if max(len(text.split()) for text in both) <= WORDS
        ]
        (folder / f"{split}.jsonl").write_text("".join(short), encoding="utf-8")
    text = ["--files", folder / "train.jsonl", "--columns", "translation", "--vocab_size", 3000]
    run_python("-m", "triptych.samples", "tokenizer", folder / "tokenizer", *text)
    run_python("-c", MAKE_MODEL, folder / "tokenizer", folder / "model")
    return folder


@pytest.mark.timeout(4 * 3600)
def test_a_small_model_learns_to_translate_better_than_copying_in_every_form(
    short_messages, forms, tmp_path, capsys
):
    words = flags(
        model_name_or_path=short_messages / "model",
        source_lang="en",
        target_lang="de",
        train_file=short_messages / "train.jsonl",
        validation_file=short_messages / "test.jsonl",
        do_train=True,
        do_eval=True,
        predict_with_generate=True,
        max_source_length=64,
        max_target_length=64,
        per_device_train_batch_size=ROWS,
        per_device_eval_batch_size=100,
        group_by_length=True,
        max_steps=STEPS,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=200,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    sources, targets = pairs_of(short_messages / "test.jsonl")
    assert len(sources) > 1000, "there are too few catalogs on this machine"
    copied = {}
    for name in ("bleu", "chrf"):
        copied |= metrics.load(name).compute(predictions=sources, references=targets)
    translators = [form for form in forms if form.task == "translation"]
    learnt = {form.name: learn(form, words, tmp_path / form.name) for form in translators}
    first = next(iter(learnt.values()))
    rows = []
    for name, run in learnt.items():
        scores = [run.results[f"eval_{metric}"] for metric in ("bleu", "chrf", "loss")]
        # Later they go ways of their own, as rounding grows.
        difference = largest_difference(run.losses[:100], first.losses[:100])
        rows.append([name, *scores, difference, run.seconds / 60, run.memory])
    rows.append(["the source, copied", copied["bleu"], copied["chrf"], *4 * [None]])
    print_table(TABLE, rows, capsys)
    for name, run in learnt.items():
        assert run.results["eval_bleu"] > copied["bleu"], name
        assert run.results["eval_chrf"] > copied["chrf"], name
        assert largest_difference(run.losses[:20], first.losses[:20]) <= 1e-4, name
