"""Questions on real text, for `make test-real`: of which of four functions of Python's standard library is
a description? Names, arguments and the rest of their docstrings are the context. A baseline takes the
function whose line shares most words with the description."""

import ast
import json
import random
from collections import Counter, defaultdict

import pytest
from harness import flags
from measuring import NO_DROPOUT, PRETRAINED, largest_difference, learn, print_table

from triptych.metrics.answer_scores import exact, normalized
from triptych.samples import library
from triptych.samples.docstrings import SENTENCE_END

TRAIN, HELD_OUT, CHOICES = 800, 300, 4
TABLE = ("model", "exact match", "F1", "loss", "largest difference", "CPU seconds", "memory, GB")


def functions():
    """Name, arguments, description and the rest of the docstring of each function, by its package."""
    found = defaultdict(dict)
    for package, _, tree in library.modules():
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            first, *rest = SENTENCE_END.split(" ".join((text or "").split()), maxsplit=1)
            if rest and 4 <= len(first.split()) <= 25 and not node.name.startswith("__"):
                arguments = ast.unparse(node.args)[:60]
                found[package][node.name] = arguments, first, " ".join(rest[0].split()[:20])
    return {package: of_it for package, of_it in found.items() if len(of_it) >= CHOICES}


def rows():
    """Rows as SQuAD has them, each about functions of one package."""
    draw, found = random.Random(0), []
    for package, of_it in functions().items():
        for name, (_, description, _) in of_it.items():
            others = draw.sample([other for other in of_it if other != name], CHOICES - 1)
            chosen, context, start = draw.sample([name, *others], CHOICES), "", 0
            for one in chosen:
                start = len(context) if one == name else start
                context += f"{one}({of_it[one][0]}): {of_it[one][2]}\n"
            answers = {"text": [name], "answer_start": [start]}
            row = {"id": f"{package}.{name}", "question": description, "context": context, "answers": answers}
            found.append(row)
    draw.shuffle(found)
    return found


def most_alike(row):
    """The function whose line shares most with the question: words, and parts of names."""
    asked = Counter(normalized(row["question"].replace("_", " ")).split())

    def shared(line):
        words = Counter(normalized(line.replace("_", " ").replace("(", " ")).split())
        return sum((words & asked).values())

    return max(row["context"].splitlines(), key=shared).partition("(")[0]


@pytest.mark.timeout(7200)
def test_a_pretrained_model_finds_functions_better_than_shared_words_and_alike_in_every_form(
    forms, tmp_path, capsys
):
    every = rows()[: TRAIN + HELD_OUT]
    held_out = every[TRAIN:]
    assert len(held_out) == HELD_OUT
    for name, part in (("train", every[:TRAIN]), ("validation", held_out)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    words = flags(
        config_overrides=NO_DROPOUT,
        train_file=tmp_path / "train.jsonl",
        validation_file=tmp_path / "validation.jsonl",
        do_train=True,
        do_eval=True,
        max_seq_length=192,
        doc_stride=48,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=64,
        group_by_length=True,
        num_train_epochs=2,
        learning_rate=2e-4,
        warmup_ratio=0.1,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    pretrained = flags(model_name_or_path=PRETRAINED)
    readers = [form for form in forms if form.task == "question-answering"]
    learnt = {form.name: learn(form, [*pretrained, *words], tmp_path / form.name) for form in readers}
    first = learnt[readers[0].name]
    table = []
    for name, run in learnt.items():
        scores = [run.results[f"eval_{metric}"] for metric in ("exact_match", "f1", "loss")]
        difference = largest_difference(run.losses, first.losses) if run is not first else None
        table.append([name, *scores, difference, run.seconds, run.memory])
    right = [exact(most_alike(row), row["answers"]["text"][0]) for row in held_out]
    baseline = 100 * sum(right) / len(right)
    table.append(["the function that shares most words", baseline, *5 * [None]])
    print_table(TABLE, table, capsys)
    scores = [run.results["eval_exact_match"] for run in learnt.values()]
    assert max(scores) - min(scores) <= 2, "the forms do not learn alike"
    assert min(scores) > baseline
