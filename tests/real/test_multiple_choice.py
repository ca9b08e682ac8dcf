"""Multiple choice on real text, for `make test-real`: a pretrained model fine-tuned to tell which sense of a
word a sentence uses, beside what its similarities say without any training, and beside chance."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from harness import flags, run_python
from measuring import NO_DROPOUT, PRETRAINED, largest_difference, learn, print_table

from triptych.samples.senses import DICTIONARY

ROWS = 3000
TABLE = ("model", "accuracy", "loss", "largest difference", "CPU seconds", "memory, GB")

# The mean of the last layer is what this model was trained to compare by cosine.
SIMILARITIES = """if True:
    import json, sys, torch
    from transformers import AutoModel, AutoTokenizer

    folder, *files = sys.argv[1:]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def vectors(texts):
        read = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        mask = read["attention_mask"][:, :, None]
        means = (model(**read).last_hidden_state * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(means)

    right = []
    for row in (json.loads(line) for file in files for line in open(file)):
        asked = vectors([f"{row['word']}: {row['context']}"])
        likest = (vectors([f"{row['word']}: {text}" for text in row["choices"]]) @ asked[0]).argmax().item()
        right.append("ABCD"[likest] == row["label"])
    print(json.dumps(right))
"""


@pytest.fixture(scope="session")
def senses(tmp_path_factory):
    dictionary = os.environ.get("TRIPTYCH_WORDNET", DICTIONARY)
    if not Path(dictionary, "data.noun").exists():
        pytest.skip(
            f"there is no WordNet in {dictionary}: `apt install wordnet-base` on Debian, or name a folder of "
            "its files in $TRIPTYCH_WORDNET"
        )
    folder = tmp_path_factory.mktemp("senses")
    run_python("-m", "triptych.samples", "senses", folder, "--rows", ROWS, "--dictionary", dictionary)
    return folder


@pytest.mark.timeout(7200)
def test_a_pretrained_model_tells_senses_better_than_similarity_and_alike_in_every_form(
    senses, forms, tmp_path, capsys
):
    held_out = [senses / "validation.jsonl", senses / "test.jsonl"]
    words = flags(
        model_name_or_path=PRETRAINED,
        config_overrides=NO_DROPOUT,
        train_file=senses / "train.jsonl",
        validation_file=",".join(map(str, held_out)),
        do_train=True,
        do_eval=True,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=32,
        group_by_length=True,
        num_train_epochs=2,
        learning_rate=1e-4,
        warmup_ratio=0.1,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    own = [form for form in forms if form.task == "multiple-choice"]
    learnt = {form.name: learn(form, words, tmp_path / form.name) for form in own}
    baseline = np.mean(json.loads(run_python("-c", SIMILARITIES, PRETRAINED, *held_out).splitlines()[-1]))
    first = learnt[own[0].name]
    rows = [
        [
            name,
            100 * run.results["eval_accuracy"],
            run.results["eval_loss"],
            largest_difference(run.losses, first.losses) if run is not first else None,
            run.seconds,
            run.memory,
        ]
        for name, run in learnt.items()
    ]
    rows.append(["the likest by cosine, without training", 100 * baseline, *4 * [None]])
    rows.append(["chance", 25, *4 * [None]])
    print_table(TABLE, rows, capsys)
    scores = [run.results["eval_accuracy"] for run in learnt.values()]
    assert max(scores) - min(scores) <= 0.02, "the forms do not learn alike"
    assert min(scores) > baseline > 0.25
