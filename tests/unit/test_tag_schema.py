"""What tags are taken for, which number each gets, what is refused and mended, and which are decided for."""

import itertools
import logging
import random
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.data import schemes, tag_schema
from triptych.data.tag_schema import Tags
from triptych.errors import InputError, RunError

datasets = pytest.importorskip("datasets")

IOB2 = ["B-PER", "I-PER", "O", "B-LOC"]
CONLL = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def settle(model=None, flags=None, columns=None, **splits):
    """The tags, the configuration and the rows of splits: lists of tags, or datasets."""
    from transformers import BertConfig

    config = model or BertConfig()
    raw = {
        split: values if not isinstance(values, list) else datasets.Dataset.from_dict({"tags": values})
        for split, values in splits.items()
    }
    given = {"task_name": "ner", "scheme": None, "repair_tags": False, "constrained_decoding": False}
    data_args = SimpleNamespace(**{**given, "ignore_mismatched_sizes": False, **(flags or {})})
    columns = {"tags": "tags"} if columns is None else columns
    return tag_schema.settle(config, raw, columns, data_args), config, raw


def a_model(names=CONLL, **settings):
    from transformers import BertConfig

    config = BertConfig(architectures=["BertForTokenClassification"], **settings)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    return config


def problems(*arguments, **keywords):
    with pytest.raises(InputError) as caught:
        settle(*arguments, **keywords)
    return "\n".join(caught.value.problems)


def in_classes(values, names, make=datasets.List):
    features = datasets.Features({"tags": make(datasets.ClassLabel(names=list(names)))})
    return datasets.Dataset.from_dict({"tags": values}, features=features)


@pytest.mark.parametrize(
    ("values", "flags", "scheme", "names"),
    [
        ([IOB2], {}, "iob2", ("O", "B-LOC", "B-PER", "I-PER")),
        ([["I-A", "I-A", "B-A", "O", "I-B"]], {}, "iob1", ("O", "B-A", "I-A", "I-B")),
        ([["I-A", "O"]], {}, "iob1", ("O", "I-A")),
        ([["B-A", "O"]], {}, "iob2", ("O", "B-A")),
        ([["B-A", "I-A", "E-A", "O", "S-B"]], {}, "iobes", ("O", "B-A", "I-A", "E-A", "S-B")),
        ([["B-A", "M-A", "E-A", "O", "W-B"]], {}, "iobes", ("O", "B-A", "M-A", "E-A", "W-B")),
        ([["B-A", "I-A", "L-A", "U-B", "O"]], {}, "bilou", ("O", "B-A", "I-A", "L-A", "U-B")),
        ([["S-A", "O"], ["S-B"]], {}, "iobes", ("O", "S-A", "S-B")),
        ([["B", "I", "O"]], {}, "iob2", ("O", "B", "I")),
        ([["PER", "O", "LOC"]], {}, "none", ("O", "LOC", "PER")),
        ([["NOUN", "S", "VERB"]], {}, "none", ("NOUN", "S", "VERB")),
        ([["-LRB-", "NN", "O"]], {}, "none", ("O", "-LRB-", "NN")),
        ([["B-X", "NOUN"]], {"task_name": "pos"}, "none", ("B-X", "NOUN")),
        ([["B-X", "NOUN"]], {"scheme": "none"}, "none", ("B-X", "NOUN")),
        ([["B-A-1", "I-A-1", "O"]], {}, "iob2", ("O", "B-A-1", "I-A-1")),
        ([[10, 2], [0]], {}, "none", ("0", "2", "10")),
    ],
)
def test_scheme_and_numbers_follow_from_the_tags(values, flags, scheme, names):
    tags, config, _ = settle(train=values, flags=flags)
    assert tags.scheme == config.tag_scheme == scheme
    assert tags.names == names
    assert tags.encode(values) == [[names.index(str(tag)) for tag in row] for row in values]
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: number for number, name in enumerate(names)}
    assert config.problem_type is None
    assert tags.loss_unit == "nats per labelled token"
    assert tags.marks_entities == ("task_name" not in flags and "10" not in names)


def test_all_rows_of_all_splits_tell_the_scheme():
    # Each split by itself could be IOB2; the validation rows show that I- begins entities.
    tags, _, _ = settle(train=[["I-A", "I-A", "B-A", "O"]], validation=[["O", "I-A"]])
    assert tags.scheme == "iob1"
    tags, _, _ = settle(
        train=[["S-A", "O"], ["B-A", "E-A"]], validation=[["S-A", "O"]], test=[["O", "B-A", "E-A"], None]
    )
    assert tags.scheme == "iobes"


def test_a_few_faults_do_not_turn_the_scheme():
    rows = [["B-A", "I-A", "O"]] * 20
    assert "'I-A' after 'O' (word 2) in row 21" in problems(train=[*rows, ["O", "I-A"]])
    rows = [["I-A", "I-A", "O"]] * 20
    found = problems(train=[*rows, ["O", "B-A"]])
    assert "'B-A' after 'O' (word 2) in row 21" in found
    assert "iob1" in found


def test_the_scheme_is_said_once(caplog):
    caplog.set_level(logging.INFO)
    settle(train=[IOB2], validation=[IOB2], flags={"scheme": None})
    assert sum("iob2" in record.message for record in caplog.records) == 1
    caplog.clear()
    settle(train=[["I-A", "O"]], flags={"scheme": "iob1"})
    assert sum("iob1" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("make", [datasets.List, datasets.LargeList, datasets.Sequence])
def test_classes_of_a_dataset_keep_their_order_and_names(make):
    names = ("B-LOC", "O", "I-LOC")
    tags, _, _ = settle(train=in_classes([[0, 2, 1]], names, make))
    assert tags.names == names
    assert tags.scheme == "iob2"
    assert tags.encode([[0, 2, 1]]) == [[0, 2, 1]]
    # The numbers of a dataset are not those of a model that has the classes in another order.
    tags, _, _ = settle(a_model(("O", "B-LOC", "I-LOC")), train=in_classes([[0, 2, 1]], names, make))
    assert tags.names == ("O", "B-LOC", "I-LOC")
    assert tags.encode([[0, 2, 1]]) == [[1, 2, 0]]


def test_a_model_keeps_its_order_in_training_and_without():
    model_names = ("I-PER", "B-LOC", "O", "B-PER")
    for splits in ({"train": [IOB2]}, {"validation": [["O", "B-LOC"]]}, {"test": [["O"]]}, {}):
        tags, config, _ = settle(a_model(model_names), **splits)
        assert tags.names == model_names, splits
        assert tags.scheme == "iob2"
        assert config.id2label == dict(enumerate(model_names))


def test_other_tags_need_a_new_head():
    found = problems(a_model(), train=[["B-MISC", "O"]])
    assert "the rows have labels B-MISC" in found
    assert "--ignore_mismatched_sizes" in found
    tags, config, _ = settle(a_model(), train=[["B-MISC", "O"]], flags={"ignore_mismatched_sizes": True})
    assert tags.names == ("O", "B-MISC")
    assert config.num_labels == 2
    tags, _, _ = settle(a_model([f"LABEL_{n}" for n in range(4)]), train=[IOB2])
    assert tags.names == ("O", "B-LOC", "B-PER", "I-PER")


def test_a_head_of_another_task_says_nothing_of_tags():
    from transformers import BertConfig

    config = BertConfig(architectures=["BertForSequenceClassification"], problem_type="regression")
    _, config, _ = settle(config, train=[IOB2])
    assert config.num_labels == 4
    assert config.problem_type is None
    assert "no head that knows tags" in problems(config, columns={}, test=[IOB2])


def test_rows_to_predict_are_read_by_the_scheme_that_the_model_was_trained_with(tmp_path):
    from transformers import BertConfig

    _, config, _ = settle(train=[["I-A", "I-A", "B-A", "O"]])
    config.architectures = ["BertForTokenClassification"]
    config.save_pretrained(tmp_path)
    again = BertConfig.from_pretrained(tmp_path)
    assert settle(again, columns={}, test=[IOB2])[0].scheme == "iob1"
    assert settle(again, validation=[["O", "O"]])[0].scheme == "iob1"
    for names, scheme in (
        (CONLL, "iob2"),
        (("O", "I-A"), "iob1"),
        (("O", "B-A", "E-A"), "iobes"),
        ("AB", "none"),
    ):
        assert settle(a_model(tuple(names)), columns={}, test=[IOB2])[0].scheme == scheme


def test_tags_that_are_none_of_the_scheme_are_listed():
    found = problems(train=[IOB2, ["X-PER", "O"], ["PER", "O"], ["X-PER", "O"]])
    assert "train: tags that are none of iob2" in found
    assert "'X-PER' (row 2), 'PER' (row 3)" in found
    assert "--scheme none" in found
    assert "B-, I-" in found
    settle(train=[["X-PER", "PER", "B-PER"]], flags={"scheme": "none"})
    # Nor can they be mended.
    assert "'X-PER'" in problems(train=[IOB2, ["X-PER", "O", "I-PER"]], flags={"repair_tags": True})


def test_sequences_that_the_scheme_does_not_allow_are_all_told_at_once():
    wrong = [["O", "I-A"], ["B-A", "I-B"], ["I-A", "O"]]
    found = problems(train=[["B-A", "O"]] * 9 + wrong, validation=[["B-A", "I-A"], ["O", "I-A"]])
    assert (
        "train: 3 of 12 rows have tags in an order that is not of iob2: 'I-A' after 'O' (word 2) in row 10, "
        "'I-B' after 'B-A' (word 2) in row 11, 'I-A' at the start (word 1) in row 12" in found
    )
    assert "validation: 1 of 2 rows" in found
    assert "--repair_tags" in found
    many = problems(train=[["B-A", "I-A", "O"]] * 50 + [["O", "I-A"]] * 12)
    assert many.count("'I-A'") == 10
    assert "and 2 more" in many
    assert "'B-A' at the end (word 2)" in problems(train=[["S-A", "O"], ["O", "B-A"], ["B-A", "E-A"]])


def test_mending_is_counted_and_reaches_training_and_scores(caplog):
    rows = [["B-A", "I-A", "O"]] * 5
    wrong = [["O", "I-A", "I-A"], ["B-A", "I-B", "O"]]
    tags, _, _ = settle(train=[*rows, *wrong, ["B-B", "O"]], flags={"repair_tags": True})
    assert "train: the tags of 2 of 8 rows mended: row 6, 7" in caplog.text
    assert tags.names == ("O", "B-A", "I-A", "B-B"), "I-B is in no mended row"
    assert tags.encode(wrong) == [[0, 1, 2], [1, 3, 0]]
    assert tags.read(wrong[0]) == ["O", "B-A", "I-A"]
    # What mending needs may be no tag of the dataset.
    asked = {"repair_tags": True, "scheme": "iobes"}
    found = problems(train=in_classes([[0, 2], [1, 1]], ("O", "I-A", "S-A")), flags=asked)
    assert "'B-A' (row 2), 'E-A' (row 2)" in found


@pytest.mark.parametrize(
    ("scheme", "wrong", "right"),
    [
        ("iob2", "O I-A I-A O B-A I-B", "O B-A I-A O B-A B-B"),
        ("iob1", "O B-A B-A I-B B-A I-A", "O I-A B-A I-B I-A I-A"),
        ("iobes", "I-A I-A O E-B B-A O S-A I-A", "B-A E-A O S-B S-A O S-A S-A"),
        ("iobes", "M-A M-A O E-B W-B W-A", "B-A E-A O W-B W-B W-A"),
        ("bilou", "B-A I-A O L-B U-B B-A", "B-A L-A O U-B U-B U-A"),
        ("iob2", "O I I O B I", "O B I O B I"),
        ("iob1", "O B", "O I"),
    ],
)
def test_mending_keeps_the_entities_that_conlleval_reads(scheme, wrong, right):
    wrong, right = wrong.split(), right.split()
    assert schemes.first_fault(wrong, scheme) is not None
    assert schemes.mend(wrong, scheme, wrong) == right
    assert schemes.first_fault(right, scheme) is None
    assert schemes.extract(wrong, scheme) == schemes.extract(right, scheme)


@pytest.mark.parametrize("scheme", list(schemes.LETTERS))
def test_entities_written_as_tags_are_read_again(scheme):
    draw = random.Random(3)
    letters = [letter for letter in schemes.LETTERS[scheme] if letter not in "MW"]
    names = ["O", *(f"{letter}-{kind}" for letter in letters for kind in "AB")]
    legal = 0
    for _ in range(2000):
        tags = draw.choices(names, k=draw.randint(1, 6))
        entities = schemes.extract(tags, scheme)
        written = schemes.write(entities, len(tags), scheme, names)
        assert schemes.first_fault(written, scheme) is None
        assert schemes.extract(written, scheme) == entities
        if schemes.first_fault(tags, scheme) is None:
            legal += 1
            assert written == tags
    assert legal > 20


def test_unseen_tags_are_listed_for_every_split():
    found = problems(train=[IOB2], validation=[["B-X", "O"], ["B-Y", "B-X"]], test=[["B-Z", "O"]])
    assert "validation: tags that the model does not know: 'B-X' (row 1), 'B-Y' (row 2)" in found
    assert "test: tags that the model does not know: 'B-Z' (row 1)" in found
    assert "It knows: O, B-LOC, B-PER, I-PER" in found
    assert "'B-X' (row 1)" in problems(a_model(), validation=[["B-X"]])


def test_tags_of_rows_to_predict_that_cannot_be_read_may_be_left_out():
    for values in ([["?", "O"]], [["O", "I-PER"]], [["O", None]], [["B-X"]]):
        assert "leave the column out" in problems(train=[IOB2], test=values), values
        assert "leave the column out" not in problems(train=[IOB2], validation=values), values


def test_words_without_a_tag_are_told_by_row():
    found = problems(train=[IOB2, ["O", None], ["", "O"]], validation=[["O"], None])
    assert "train: 2 of 3 rows have words without a tag: row 2, 3" in found
    assert "validation: 1 of 2 rows have words without a tag: row 2" in found
    assert "row 1" in problems(train=in_classes([[-1, 0], [0, 1]], "OX"))
    assert "test: 1 of 2 rows" in problems(train=[IOB2], test=[["O", None], [None, None]])


def test_rows_to_predict_may_lack_tags():
    for values in ([None, None], [[None], None], [[], [None, None]]):
        tags, _, raw = settle(train=[IOB2], test=values)
        assert raw["test"].column_names == []
    _, _, raw = settle(train=in_classes([[0, 1]], ("O", "B-A")), test=in_classes([[-1, -1]], ("O", "B-A")))
    assert raw["test"].column_names == []
    tags, _, raw = settle(train=[IOB2], test=[["O"], None, [None]])
    assert raw["test"].column_names == ["tags"]
    assert tags.encode(raw["test"]["tags"][:]) == [[0], None, None]


def test_one_tag_is_nothing_to_learn():
    assert "the same tag, 'O'" in problems(train=[["O", "O"]])


def test_streamed_rows_need_names_beforehand():
    def stream(values):
        return datasets.Dataset.from_dict({"tags": values}).to_iterable_dataset()

    assert "--streaming" in problems(train=stream([IOB2]))
    tags, _, _ = settle(a_model(), train=stream([IOB2]))
    assert tags.names == CONLL
    tags, _, _ = settle(train=in_classes([[0, 1]], ("O", "B-A")).to_iterable_dataset())
    assert tags.names == ("O", "B-A")
    assert tags.scheme == "iob2"
    for value, said in ((["B-X", "O"], "'B-X'"), ([None, 0], "no tag")):
        with pytest.raises(InputError, match=said):
            tags.encode([value])
    tags, _, _ = settle(a_model(), train=stream([IOB2]))
    with pytest.raises(InputError, match="'I-PER' after 'O'"):
        tags.encode([["O", "I-PER"]])
    tags, _, _ = settle(a_model(), train=stream([IOB2]), flags={"repair_tags": True})
    assert tags.encode([["O", "I-PER"]]) == [[0, 3]]
    with pytest.raises(InputError, match="'X-PER'"):
        tags.encode([["X-PER", "I-PER"]])


def test_further_tokens_of_a_word_begin_nothing():
    assert Tags(None, ("O", "B-A", "I-A", "B-B"), "iob2").inside == (0, 2, 2, 3)
    assert Tags(None, ("O", "U-A", "I-A", "L-A", "B-A"), "bilou").inside == (0, 2, 2, 3, 2)
    assert Tags(None, ("O", "B-A", "I-A"), "none").inside == (0, 1, 2)


def likeliest(probabilities, names, scheme):
    """By trying all sequences."""
    best = None
    for path in itertools.product(range(len(names)), repeat=len(probabilities)):
        if schemes.first_fault([names[number] for number in path], scheme) is None:
            score = sum(np.log(row[number]) for row, number in zip(probabilities, path, strict=True))
            if best is None or score > best[0] + 1e-12:
                best = score, path
    return list(best[1])


@pytest.mark.parametrize("scheme", list(schemes.LETTERS))
def test_constrained_decoding_finds_the_likeliest_legal_sequence(scheme):
    letters = [letter for letter in schemes.LETTERS[scheme] if letter not in "MW"]
    names = ("O", *(f"{letter}-{kind}" for kind in "AB" for letter in letters))[:7]
    draw = np.random.default_rng(4)
    free, bound = Tags(None, names, scheme), Tags(None, names, scheme, constrained=True)
    changed = 0
    for _ in range(25):
        probabilities = draw.dirichlet(np.full(len(names), 0.4), size=5)
        found = bound.decide(probabilities)
        assert found.dtype == np.int64
        assert found.tolist() == likeliest(probabilities, names, scheme)
        changed += found.tolist() != free.decide(probabilities).tolist()
    assert changed > 5


def test_decoding_breaks_ties_by_the_lowest_number_and_always_answers():
    tags = Tags(None, ("O", "B-A", "I-A"), "iob2", constrained=True)
    even = np.full((4, 3), 1 / 3, np.float32)
    assert tags.decide(even).tolist() == [0, 0, 0, 0]
    certain = np.eye(3, dtype=np.float32)[[0, 2, 2]]  # O I I, with no doubt
    found = [tags.names[number] for number in tags.decide(certain)]
    assert schemes.first_fault(found, "iob2") is None
    assert tags.decide(np.zeros((0, 3), np.float32)).shape == (0,)
    # Without B- and O nothing is legal; the answer is the likeliest all the same.
    cramped = Tags(None, ("I-A", "I-B"), "iob2", constrained=True)
    assert cramped.decide([[0.2, 0.8], [0.4, 0.6]]).tolist() == [1, 1]
    # A tag that the scheme has no rule for may stand anywhere.
    odd = Tags(None, ("O", "?", "I-A", "B-A"), "iob2", constrained=True)
    assert odd.decide(np.eye(4)[[1, 2, 1, 0]]).tolist() == [1, 2, 1, 0]
    for one in (tags, Tags(None, ("O", "B-A", "I-A"), "iob2")):
        with pytest.raises(RunError, match="no number"):
            one.decide([[0.1, np.nan, 0.9]])


def test_a_long_row_is_decoded_in_time_and_exactly():
    names = (*(f"{letter}-{kind}" for letter in "BI" for kind in range(40)), "O")
    tags = Tags(None, names, "iob2", constrained=True)
    draw = np.random.default_rng(0)
    found = tags.decide(draw.dirichlet(np.ones(len(names)), size=3000))
    assert schemes.first_fault([names[number] for number in found], "iob2") is None


def test_windows_of_a_row_become_its_words():
    tags = Tags(None, ("B-A", "O", "I-A"), "iob2")
    one = [[-100, 9, 9, 9], [0, 0.5, 0.25, 0.25], [-100, 9, 9, 9], [3, 0, 0, 1]]
    other = np.array([[1, 0.125, 0.75, 0.125], [-100, 9, 9, 9]], np.float32)
    found = tags.of_row([one, other], 4)
    assert found.dtype == np.float32
    assert found.tolist() == [[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0, 1, 0], [0, 0, 1]]
    names, probabilities = tags.answer([one, other], 4)
    assert names == ["B-A", "O", "O", "I-A"]
    assert probabilities.tolist() == [0.5, 0.75, 1, 1]
    assert Tags(None, ("X", "Y"), "none").of_row([], 2).tolist() == [[1, 0], [1, 0]]


def test_rows_with_tags_are_scored_and_the_others_are_not():
    tags, _, raw = settle(train=[["B-A", "I-A", "O"]], test=[["B-A", "O"], None, ["O"]])
    rows = raw["test"].add_column("tokens", [["x", "y"], ["z"], ["w"]])
    answers = [[[[0, 0.1, 0.8, 0.1], [1, 0.1, 0.1, 0.8]]], [[[0, 1, 0, 0]]], [[[0, 0, 1, 0]]]]
    assert tags.scored(answers, rows, "tokens") == ([["B-A", "I-A"], ["B-A"]], [["B-A", "O"], ["O"]])
    assert tags.scored(answers, rows.remove_columns("tags"), "tokens") is None


def test_telling_needs_no_more_than_steps_and_names():
    steps = Counter(step for row in (["B-A", "I-A"], ["O", "B-A"]) for step in schemes.steps(row))
    assert schemes.tell(steps, ()) == "iob2"
    assert schemes.tell(Counter(), ()) == "none"
    assert schemes.tell(Counter(), ["O", "B-A", "I-A"], "iob1") == "iob1"
