"""Real weights, for `make test-real`: a BERT with its head for hidden tokens, pretrained on chemical
reactions, goes on learning in every form: that of Schwaller et al. 2021, doi:10.1038/s42256-020-00284-w, in
the package rxnfp. And a sentence encoder without such a head, MiniLM, which learns documentation first, then
texts of another kind, beside the frequencies of their tokens."""

import itertools
import json
import math
import random
import re
import shutil
from collections import Counter

import pytest
from harness import ROOT, flags, run_python
from measuring import NO_DROPOUT, PRETRAINED, largest_difference, learn, print_table

from triptych.samples.bulletins import bulletins
from triptych.samples.docstrings import docstrings

pytestmark = pytest.mark.needs("masks")

OLD = ROOT / "build/rxnfp/rxnfp/models/transformers/bert_pretrained"  # see the Makefile
STEPS = 30
LONGEST = 62  # tokens of a reaction: with those at its ends one length in JAX, so one program
TABLE = (
    *("model", "loss before", "accuracy before", "loss after", "accuracy after"),
    *("largest difference before", "of 30 steps", "CPU seconds", "memory, GB"),
)
# Atoms, bonds and brackets as the model's authors split reactions
TOKENS = (
    r"\%\([0-9]{3}\)|\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\||\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>>?|\*|\$"
    r"|\%[0-9]{2}|[0-9]"
)
ACYLS = ("CC(=O)", "CCC(=O)", "CCCC(=O)", "CC(C)C(=O)", "ClCC(=O)", "COCC(=O)", "C=CC(=O)")
ACYLS += ("O=C(c1ccccc1)", "O=C(c1ccc(C)cc1)", "O=C(c1ccc(Cl)cc1)", "O=C(c1ccncc1)", "O=C(Cc1ccccc1)")
ALKYLS = ("C", "CC", "CCC", "CCCC", "C(C)C", "CC(C)C", "Cc1ccccc1", "CCOC", "CC=C", "CCc1ccccc1", "C1CCCCC1")
ARYLS = ("c1ccccc1", "c1ccc(C)cc1", "c1ccc(OC)cc1", "c1ccc(F)cc1", "c1ccc(C#N)cc1", "c1ccncc1", "c1cccc(C)c1")


def reactions() -> list[str]:
    """Esters and amides of acids, and biaryls by Suzuki's coupling: reactants, ">>", product."""
    made = []
    for acyl, alkyl in itertools.product(ACYLS, ALKYLS):
        made.append(f"{acyl}O.O{alkyl}>>{acyl}O{alkyl}")
        made.append(f"{acyl}Cl.N{alkyl}>>{acyl}N{alkyl}")
    for first, second in itertools.product(ARYLS, ARYLS):
        product = f"c1(-{second.replace('1', '2')}){first[2:]}"
        made.append(f"Br{first}.OB(O){second}>>{product}")
    made = [row for row in made if len(re.findall(TOKENS, row)) <= LONGEST]
    random.Random(0).shuffle(made)
    return made


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory):
    """The model as it is read today, and its tokenizer."""
    import tokenizers
    import transformers

    folder = tmp_path_factory.mktemp("rxnfp")
    old, new = folder / "old", folder / "new"
    old.mkdir()
    shutil.copy(OLD / "pytorch_model.bin", old)
    config = json.loads((OLD / "config.json").read_text())
    config |= {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (old / "config.json").write_text(json.dumps(config))
    words = (OLD / "vocab.txt").read_text().split("\n")
    ids = {word: number for number, word in enumerate(words) if word}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(TOKENS), "isolated")
    ends = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(old)
    run_python("-m", "triptych.migrate", old, new)
    return new


@pytest.fixture(scope="session")
def learnt(pretrained, tmp_path_factory):
    """A function that has a form learn the reactions, once, and returns what it came to, and its loss and
    accuracy before."""
    folder, rows, known = tmp_path_factory.mktemp("reactions"), reactions(), {}
    for name, part in (("train", rows[40:]), ("validation", rows[:40])):
        (folder / f"{name}.txt").write_text("".join(f"{row}\n" for row in part))
    words = flags(
        model_name_or_path=pretrained,
        config_overrides=NO_DROPOUT,
        train_file=folder / "train.txt",
        validation_file=folder / "validation.txt",
        line_by_line=True,
        eval_on_start=True,
        max_steps=STEPS,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=40,
        learning_rate=2e-4,
        warmup_steps=5,
        **EVALUATED,
    )

    def of(form):
        if form.name not in known:
            run = learn(form, words, folder / form.name)
            known[form.name] = run, first_evaluation(folder / form.name / "out")
        return known[form.name]

    return of


EVALUATED = dict(do_train=True, do_eval=True, eval_strategy="steps", eval_steps=1000, logging_steps=1)
EVALUATED |= dict(save_strategy="no", output_dir="out")


def first_evaluation(output):
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return next(entry for entry in log if entry["step"] == 0)


def row_of(name, run, begun, differences=(None, None)):
    figures = [begun["eval_loss"], begun["eval_accuracy"]]
    figures += [run.results["eval_loss"], run.results["eval_accuracy"]]
    return [name, *figures, *differences, run.seconds, run.memory]


@pytest.mark.timeout(3600)
def test_a_pretrained_model_finds_most_tokens_and_learns_as_in_the_first_form(
    first_form, other_form, learnt, capsys
):
    first, before = learnt(first_form)
    run, begun = learnt(other_form)
    differences = (
        abs(begun["eval_loss"] / before["eval_loss"] - 1),
        largest_difference(run.losses, first.losses),
    )
    rows = [row_of(first_form.name, first, before), row_of(other_form.name, run, begun, differences)]
    print_table(TABLE, rows, capsys)
    assert begun["eval_accuracy"] > 0.7, "the weights are not those that were trained"
    assert run.results["eval_loss"] < 0.7 * begun["eval_loss"]
    assert differences[0] < 1e-5
    assert differences[1] < 1e-3


FURTHER, ROWS = 80, 100  # steps with the texts of another kind; how many of them are held out
OF_TEXTS = (
    "loss before",
    "accuracy before",
    "loss after",
    "accuracy after",
    "largest difference of 25 steps",
)
OF_TEXTS = ("what", *OF_TEXTS, "CPU seconds", "memory, GB")


@pytest.fixture(scope="session")
def documented(forms, tmp_path_factory):
    """MiniLM, whose package has no head for hidden tokens, after it has learnt to find those of the standard
    library's docstrings; and what that came to."""
    folder = tmp_path_factory.mktemp("documentation")
    rows = [row["text"] for row in docstrings()]
    random.Random(0).shuffle(rows)
    write(folder / "train.jsonl", rows[ROWS:])
    write(folder / "validation.jsonl", rows[:ROWS])
    words = flags(
        model_name_or_path=PRETRAINED,
        train_file=folder / "train.jsonl",
        validation_file=folder / "validation.jsonl",
        max_seq_length=48,
        max_steps=100,
        per_device_train_batch_size=12,
        per_device_eval_batch_size=32,
        learning_rate=5e-4,
        warmup_steps=10,
        eval_on_start=True,
        **EVALUATED,
    )
    first = next(form for form in forms if form.tests.get("masks"))
    return learn(first, words, folder / "run"), folder / "run/out"


@pytest.fixture(scope="session")
def continued(documented, tmp_path_factory):
    """As `learnt`, of news reports behind the docstrings; and the folder of the reports."""
    folder, known = tmp_path_factory.mktemp("reports"), {}
    rows = [row["text"] for row in bulletins(rows=3000, seed=5)]
    write(folder / "train.jsonl", rows[ROWS:])
    write(folder / "validation.jsonl", rows[:ROWS])
    words = flags(
        model_name_or_path=documented[1],
        config_overrides=NO_DROPOUT,
        train_file=folder / "train.jsonl",
        validation_file=folder / "validation.jsonl",
        max_seq_length=48,
        max_steps=FURTHER,
        per_device_train_batch_size=12,
        per_device_eval_batch_size=32,
        learning_rate=5e-4,
        warmup_steps=3,
        eval_on_start=True,
        **EVALUATED,
    )

    def of(form):
        if form.name not in known:
            run = learn(form, words, folder / form.name)
            known[form.name] = run, first_evaluation(folder / form.name / "out")
        return known[form.name]

    return of, folder


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def by_frequency(folder, tokenizer):
    """Nats per token of the held-out texts by their frequencies in those to learn from, each token counted
    once more than it occurs; and the share of the commonest."""
    texts = (
        [json.loads(line)["text"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation")
    )
    known, held_out = (
        Counter(token for text in each for token in tokenizer(text, add_special_tokens=False)["input_ids"])
        for each in texts
    )
    total, count = known.total() + len(tokenizer), held_out.total()
    nats = -sum(times * math.log((known[token] + 1) / total) for token, times in held_out.items())
    return nats / count, held_out[known.most_common(1)[0][0]] / count


@pytest.mark.timeout(3600)
def test_a_pretrained_model_learns_texts_of_another_kind_as_in_the_first_form(
    first_form, other_form, documented, continued, capsys
):
    import transformers

    of, folder = continued
    (first, before), (run, begun) = of(first_form), of(other_form)
    tokenizer = transformers.AutoTokenizer.from_pretrained(PRETRAINED)
    nats, commonest = by_frequency(folder, tokenizer)
    begun_with = first_evaluation(documented[1])
    difference = largest_difference(run.losses[:25], first.losses[:25])
    rows = [row_of(first_form.name, first, before, [None]), row_of(other_form.name, run, begun, [difference])]
    rows += [row_of("documentation, in the first form", documented[0], begun_with, [None])]
    rows += [["frequencies of the reports' tokens", *[nats, commonest] * 2, *[None] * 3]]
    print_table(OF_TEXTS, rows, capsys)
    assert abs(begun["eval_loss"] / before["eval_loss"] - 1) < 1e-5
    assert difference < 1e-3
    assert documented[0].results["eval_loss"] < 0.6 * begun_with["eval_loss"]
    assert run.results["eval_loss"] < begun["eval_loss"] - 0.5
    assert run.results["eval_loss"] < nats - 0.5
    assert run.results["eval_accuracy"] > max(begun["eval_accuracy"], commonest) + 0.05
