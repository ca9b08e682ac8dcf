"""Real weights, for `make test-real`: a BERT with its head for hidden tokens, pretrained on chemical
reactions, goes on learning in every form: that of Schwaller et al. 2021, doi:10.1038/s42256-020-00284-w, in
the package rxnfp."""

import itertools
import json
import random
import shutil

import pytest
from harness import ROOT, flags, run_python
from measuring import NO_DROPOUT, largest_difference, learn, print_table

OLD = ROOT / "build/rxnfp/rxnfp/models/transformers/bert_pretrained"  # see the Makefile
STEPS = 30
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


@pytest.mark.timeout(3600)
def test_a_pretrained_model_finds_most_tokens_and_learns_alike_in_every_form(
    pretrained, forms, tmp_path, capsys
):
    rows = reactions()
    for name, part in (("train", rows[40:]), ("validation", rows[:40])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{row}\n" for row in part))
    words = flags(
        model_name_or_path=pretrained,
        config_overrides=NO_DROPOUT,
        train_file=tmp_path / "train.txt",
        validation_file=tmp_path / "validation.txt",
        line_by_line=True,
        do_train=True,
        do_eval=True,
        eval_on_start=True,
        eval_strategy="steps",
        eval_steps=STEPS,
        max_steps=STEPS,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=40,
        learning_rate=2e-4,
        warmup_steps=5,
        logging_steps=1,
        save_strategy="no",
        output_dir="out",
    )
    writers = [form for form in forms if form.task == "masked-language-modeling"]
    learnt = {form.name: learn(form, words, tmp_path / form.name) for form in writers}
    begun = {name: first_evaluation(tmp_path / name / "out") for name in learnt}
    first, table = writers[0].name, []
    for name, run in learnt.items():
        figures = [begun[name]["eval_loss"], begun[name]["eval_accuracy"]]
        figures += [run.results["eval_loss"], run.results["eval_accuracy"]]
        differences = [None, None]
        if name != first:
            differences = [abs(begun[name]["eval_loss"] / begun[first]["eval_loss"] - 1)]
            differences.append(largest_difference(run.losses, learnt[first].losses))
            assert differences[0] < 1e-5
            assert differences[1] < 1e-3
        table.append([name, *figures, *differences, run.seconds, run.memory])
    print_table(TABLE, table, capsys)
    for name, run in learnt.items():
        assert begun[name]["eval_accuracy"] > 0.7, "the weights are not those that were trained"
        assert run.results["eval_loss"] < 0.7 * begun[name]["eval_loss"]


def first_evaluation(output):
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return next(entry for entry in log if entry["step"] == 0)
