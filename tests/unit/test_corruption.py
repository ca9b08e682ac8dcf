"""Texts to be restored: what they are cut from, what is drawn for each, how holes are filled, and what is
refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from triptych import data
from triptych.arguments import CorruptionArguments
from triptych.batching.draws import IN_EVALUATION, Draws
from triptych.data import corruption, noise
from triptych.errors import InputError
from triptych.models import languages

transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")

from small_tokenizers import KINDS, TEXT, of_kind  # noqa: E402

TEXTS = [
    "The mayor met Zoë. They walked along the river!  And then?",
    "Łukasz said: no",
    "a",
    "The new mayor of Aachen met Zoë at 10:30, and they walked along the bank.\nThey met (again.) They met.",
]


def arguments(**given):
    return CorruptionArguments(train_file="a.jsonl", **given)


def tokenizer_of(kind="bytes", ends=("<s>", "</s>"), sentinels=40, mask=True):
    tokenizer = of_kind(kind, ends, eos_token="</s>", bos_token="<s>")
    if kind == "bytes":
        tokenizer.backend_tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(sentinels)], special_tokens=True)
    if mask:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


def config(**given):
    return SimpleNamespace(**{"is_encoder_decoder": True, "model_type": "t5", "pad_token_id": 0} | given)


def made(texts, split="train", tokenizer=None, **given):
    """The features of texts, what is done to them, and their tokenizer."""
    tokenizer, data_args = tokenizer or tokenizer_of(), arguments(**given)
    run = corruption.of_run(config(), tokenizer, data_args)
    tokens = corruption.tokenized({"text": texts}, {"text": "text"}, tokenizer, data_args)
    rows = datasets.Dataset.from_dict(tokens)
    return corruption.blocks({split: rows}, run, data_args)[split], run, tokenizer


def test_blocks_hold_all_texts_with_an_end_between_them():
    features, run, tokenizer = made(TEXTS * 9, max_seq_length=32)
    begin, end = tokenizer("")["input_ids"]
    assert (run.begin, run.end) == ([begin], [end])
    assert run.text_length == noise.text_length(30, 0.15, 3.0) == 33
    found = []
    for ids in features["input_ids"]:
        assert (ids[0], ids[-1]) == (begin, end)
        found.append(ids[1:-1])
    assert all(len(ids) in (run.text_length, run.text_length - 1) for ids in found[:-1])
    bare = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS * 9]
    stream = [token for ids in bare for token in [*ids, end]]
    # An end that a block would end with is the tokenizer's own.
    joined = [token for ids in found for token in [*ids, *[end] * (len(ids) < run.text_length)]]
    assert joined[: len(stream) - 1] == stream[:-1]
    assert features[data.ROW] == sorted(features[data.ROW])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_line_by_line_and_in_prediction_a_row_is_a_text(split, caplog):
    features, _, tokenizer = made(
        TEXTS, split, max_seq_length=32, line_by_line=split == "validation", objective="infilling"
    )
    rows = {}
    for ids, row in zip(features["input_ids"], features[data.ROW], strict=True):
        rows.setdefault(row, []).extend(ids[1:-1])
    # The one of a single letter has nothing that is not noise.
    assert list(rows) == [0, 1, 3]
    assert "1 texts, or ends of texts, of fewer than two tokens left out" in caplog.text
    for row, ids in rows.items():
        assert ids == tokenizer(TEXTS[row], add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whole words"])
def test_sentences_begin_where_the_text_says(kind):
    tokenizer, data_args = tokenizer_of(kind), arguments(objective="infilling")
    found = corruption.tokenized({"text": TEXTS}, {"text": "text"}, tokenizer, data_args)
    numbers = []
    for text, ids, marks in zip(TEXTS, found["input_ids"], found["labels"], strict=True):
        assert ids[-1] == tokenizer.eos_token_id
        assert len(ids) == len(marks)
        assert marks[0] == 1
        numbers.append(sum(marks))
        starts = np.flatnonzero(marks).tolist()
        parts = [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
        if kind == "bytes":
            decoded = [tokenizer.decode(part, skip_special_tokens=True) for part in parts]
            assert "".join(decoded) == text
            assert [part.strip()[-1] for part in decoded[:-1]] == [
                sign for sign in {0: ".!", 1: "", 2: "", 3: ".)"}[TEXTS.index(text)]
            ]
    assert numbers == [3, 1, 1, 3]
    still = corruption.tokenized({"text": TEXTS}, {"text": "text"}, tokenizer, arguments())
    assert still["input_ids"] == found["input_ids"]


@pytest.mark.parametrize("objective", list(noise.OBJECTIVES))
def test_what_is_drawn_for_a_row_is_its_own(objective):
    """In any batch, anew in each epoch, and at any length of its neighbours."""
    features, run, _ = made(TEXTS * 8, max_seq_length=60, objective=objective)
    rows = features[:]
    number = len(features)
    whole = corruption.corrupted(rows, Draws(1, np.arange(number)), run)
    for start, stop in ((0, 1), (1, 4), (4, number)):
        part = {name: column[start:stop] for name, column in rows.items()}
        found = corruption.corrupted(part, Draws(1, np.arange(start, stop)), run)
        for one, two in zip(found, whole, strict=True):
            assert [ids.tolist() for ids in one] == [ids.tolist() for ids in two[start:stop]]
    other = corruption.corrupted(rows, Draws(1, number + np.arange(number)), run)
    assert all(one.tolist() != two.tolist() for one, two in zip(whole[0][:-1], other[0][:-1], strict=True))
    evaluated = [
        corruption.corrupted(rows, Draws(seed, IN_EVALUATION + np.arange(number)), run) for seed in (1, 2)
    ]
    assert [ids.tolist() for ids in evaluated[0][0]] == [ids.tolist() for ids in evaluated[1][0]]


@pytest.mark.parametrize("objective", list(noise.OBJECTIVES))
def test_no_corrupted_text_is_longer_than_it_may_be(objective):
    features, run, _ = made(TEXTS * 40, max_seq_length=40, objective=objective)
    lengths = []
    for epoch in range(20):
        draws = Draws(1, epoch * len(features) + np.arange(len(features)))
        read, written = corruption.corrupted(features[:], draws, run)
        assert all(len(ids) <= len(whole) for ids, whole in zip(read, features["input_ids"], strict=True))
        assert max(map(len, written)) <= run.target_length
        lengths += map(len, read)
    assert max(lengths) <= run.input_length == 40
    assert objective == "infilling" or np.mean([length == 40 for length in lengths]) > 0.8


def test_infilling_writes_the_text_as_it_was():
    features, run, tokenizer = made(TEXTS * 8, max_seq_length=60, objective="infilling", poisson_lambda=2.0)
    read, written = corruption.corrupted(features[:], Draws(1, np.arange(len(features))), run)
    assert [ids.tolist() for ids in written] == features["input_ids"][:]
    masks = sum(int((ids == tokenizer.mask_token_id).sum()) for ids in read)
    assert masks > len(features)
    for ids, whole in zip(read, features["input_ids"], strict=True):
        assert {*ids.tolist()} <= {*whole, tokenizer.mask_token_id}
        assert (ids[0], ids[-1]) == (whole[0], whole[-1])
    still, _ = corruption.corrupted(
        features[:],
        Draws(1, np.arange(len(features))),
        run._replace(values=run.values | {"permute_sentence_ratio": 0.0}),
    )
    assert any(one.tolist() != two.tolist() for one, two in zip(read, still, strict=True))


def test_fillings_stand_where_their_sentinels_stood():
    tokenizer = tokenizer_of(ends=None)
    run = corruption.of_run(config(), tokenizer, arguments(max_new_tokens=9))
    one, two, three = run.sentinels[:3].tolist()
    words = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in ("mayor", "river")]
    answer = [0, *words[1], one, *words[0], three, *words[1], one, *words[1], tokenizer.eos_token_id, 0]
    texts = ["The<extra_id_0> met<extra_id_1> Zoë<extra_id_2>.", "met"]
    found = corruption.filled([answer, [0, two]], texts, tokenizer, run)
    assert found == ["The mayor met Zoë river.", "met"]


def test_rows_with_holes_are_read_as_they_are():
    tokenizer = tokenizer_of()
    features, _, _ = made(
        ["The <mask> met.", "a"], "test", tokenizer, objective="infilling", max_new_tokens=4
    )
    assert features["input_ids"][:] == tokenizer(["The <mask> met.", "a"])["input_ids"]
    assert features.column_names == ["input_ids"]
    with pytest.raises(InputError, match="not cut"):
        made([TEXT], "test", tokenizer, objective="infilling", max_new_tokens=4, max_seq_length=20)


def refusals(tokenizer, about=None, **given):
    with pytest.raises(InputError) as caught:
        corruption.of_run(about or config(), tokenizer, arguments(**given))
    return caught.value.problems


def test_models_without_both_parts_are_refused():
    for kind in ("bert", "gpt2"):
        (problem,) = refusals(tokenizer_of(), config(is_encoder_decoder=False, model_type=kind))
        assert kind in problem
        assert "encoder and decoder" in problem


def test_tokenizers_without_what_marks_holes_are_refused():
    (problem,) = refusals(tokenizer_of(sentinels=0))
    assert "no sentinels <extra_id_0>" in problem
    (problem,) = refusals(tokenizer_of(mask=False), objective="infilling")
    assert "no mask token" in problem


def test_sentinels_are_those_that_the_model_was_trained_with():
    """mT5's are pieces of its vocabulary, with the mark of a space; readers may add T5's behind them."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁met", -2.0)]
    pieces += [(f"▁<extra_id_{number}>", 0.0) for number in (2, 1, 0)]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    for more in ([], [f"<extra_id_{number}>" for number in range(3)]):
        tokenizer.add_tokens(more)
        run = corruption.of_run(config(), tokenizer, arguments(max_seq_length=12))
        assert run.sentinels.tolist() == [7, 6, 5]


def test_too_few_sentinels_are_told_with_the_length_that_they_are_enough_for():
    tokenizer = tokenizer_of(sentinels=10)
    (problem,) = refusals(tokenizer, max_seq_length=512)
    length = int(problem.partition("--max_seq_length ")[2].split()[0])
    assert "10 sentinels" in problem
    run = corruption.of_run(config(), tokenizer, arguments(max_seq_length=length))
    assert noise.span_counts(run.text_length, 0.15, 3.0)[1] == 10
    assert refusals(tokenizer, max_seq_length=length + 20)


def test_positions_are_enough_for_what_is_read_and_written():
    bart = config(model_type="bart", max_position_embeddings=64)
    assert corruption.of_run(bart, tokenizer_of(), arguments(objective="infilling")).input_length == 64
    problems = refusals(tokenizer_of(), bart, objective="infilling", max_seq_length=65, max_new_tokens=64)
    assert [problem.split(":")[0] for problem in problems] == ["--max_seq_length 65", "--max_new_tokens 65"]
    (problem,) = refusals(tokenizer_of(), bart, noise_density=0.9, mean_noise_span_length=50)
    assert "what is to be written" in problem


def test_texts_of_which_nothing_can_be_noise_are_refused():
    with pytest.raises(InputError, match="none of 2 rows has two tokens"):
        made(["a", "a"], "test")


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"mask_ratio": 0.3}, ["--mask_ratio is for --objective infilling, not for spans"]),
        (
            {"objective": "infilling", "noise_density": 0.1, "mean_noise_span_length": 2},
            ["--noise_density is for --objective spans", "--mean_noise_span_length is for --objective spans"],
        ),
        ({"noise_density": 1.0}, ["--noise_density 1: must be above 0 and below 1"]),
        ({"mean_noise_span_length": 0.5}, ["--mean_noise_span_length 0.5: must be at least 1"]),
        ({"objective": "infilling", "mask_ratio": 0}, ["--mask_ratio 0: must be above 0"]),
        ({"objective": "infilling", "poisson_lambda": 0}, ["--poisson_lambda 0: must be from 0.1"]),
        ({"objective": "infilling", "permute_sentence_ratio": 2}, ["--permute_sentence_ratio 2: must be"]),
        ({"max_new_tokens": 0}, ["--max_new_tokens 0: must be at least 1"]),
        ({"num_beams": 2}, ["--num_beams is for --max_new_tokens"]),
    ],
)
def test_flags_of_the_other_objective_and_values_beyond_are_refused(given, parts, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a b"}\n')
    found = CorruptionArguments(train_file=str(tmp_path / "a.jsonl"), **given).problems()
    assert len(found) == len(parts)
    for part in parts:
        assert any(part in problem for problem in found), found


@pytest.mark.parametrize("kind", ["MBart50Tokenizer", "MBartTokenizer"])
def test_what_an_mbart_writes_ends_as_its_targets_do(kind):
    """mBART-50 begins texts with their language, mBART of 2020 ends them with it."""
    letters = [(letter, -3.0) for letter in "▁abcdefgh."]
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    tokenizer = getattr(transformers, kind)(vocab=vocabulary)
    data_args = arguments(objective="infilling", line_by_line=True, lang="de_DE")
    given = languages.use_flags(tokenizer, data_args)
    run = corruption.of_run(config(model_type="mbart", max_position_embeddings=64), tokenizer, data_args)
    tokens = corruption.tokenized({"text": ["ab cd. fe gh."]}, {"text": "text"}, tokenizer, data_args)
    rows = {"train": datasets.Dataset.from_dict(tokens)}
    features = corruption.blocks(rows, run, data_args)["train"]
    read, (written,) = corruption.corrupted(features[:], Draws(1, np.arange(1)), run)
    assert written.tolist() == tokenizer(text_target="ab cd. fe gh.")["input_ids"]
    language = tokenizer.convert_tokens_to_ids("de_DE")
    assert (language in run.begin, language in run.end) == (
        kind == "MBart50Tokenizer",
        kind == "MBartTokenizer",
    )
    assert given == {("forced_bos_token_id" if run.begin else "decoder_start_token_id"): language}
    assert tokenizer.mask_token_id in read[0]
