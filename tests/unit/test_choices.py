import numpy as np
import pytest

from triptych.data import choices
from triptych.errors import InputError, RunError
from triptych.metrics.choice_scores import by_number, score

tokenizers = pytest.importorskip("tokenizers")
datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def tokenizer():
    """Words as tokens, [CLS] and [SEP] around, and types of tokens, as BERT's."""
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz?"]
    model = tokenizers.models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ids = [(word, words.index(word)) for word in ("[CLS]", "[SEP]")]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    given = dict(pad_token="[PAD]", unk_token="[UNK]", model_input_names=names)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **given)


def read(tokenizer, row):
    return [tokenizer.convert_ids_to_tokens(ids) for ids in row]


def tokenize(tokenizer, longest, *rows):
    columns = {
        "where": [f"train, row {n}" for n in range(1, len(rows) + 1)],
        "question": [[context, question] for context, question, _ in rows],
        "choices": [list(of_row) for *_, of_row in rows],
    }
    return choices.tokenize(columns, tokenizer, longest)


@pytest.mark.parametrize(
    ("context", "question", "expected"),
    [
        ("a b", "", ("a b", "x")),
        ("", "c ?", ("c ?", "x")),
        ("a b", "c ?", ("a b", "c ? x")),
        ("a b", "c _ d", ("a b", "c x d")),
        ("", "c ___ d", ("c x d", "")),
        ("a b", "c _ d _", ("a b", "c _ d _ x")),  # several places are for several parts of the choice
        ("a b", "snake_case ?", ("a b", "snake_case ? x")),
    ],
)
def test_what_is_read_of_a_choice(context, question, expected):
    assert choices.texts((context, question), "x") == expected


def test_a_placeholder_takes_any_text():
    assert choices.texts(("", "c _"), r"\1 \g<0>") == (r"c \1 \g<0>", "")


def test_every_choice_is_read_behind_its_question(tokenizer):
    found = tokenize(tokenizer, 20, ("a b", "c", ["x", "y z"]), ("", "d _ e", ["x", "y", "z"]))
    assert read(tokenizer, found["input_ids"][0]) == [
        ["[CLS]", "a", "b", "[SEP]", "c", "x", "[SEP]"],
        ["[CLS]", "a", "b", "[SEP]", "c", "y", "z", "[SEP]"],
    ]
    assert found["token_type_ids"][0][0] == [0, 0, 0, 0, 1, 1, 1]
    assert read(tokenizer, found["input_ids"][1]) == [f"[CLS] d {letter} e [SEP]".split() for letter in "xyz"]


def test_the_context_alone_is_cut(tokenizer):
    found = tokenize(tokenizer, 8, ("a b c d e", "f", ["x", "x y", "x y z"]))
    assert read(tokenizer, found["input_ids"][0]) == [
        ["[CLS]", "a", "b", "c", "[SEP]", "f", "x", "[SEP]"],
        ["[CLS]", "a", "b", "[SEP]", "f", "x", "y", "[SEP]"],
        ["[CLS]", "a", "[SEP]", "f", "x", "y", "z", "[SEP]"],
    ]


def test_the_end_of_a_context_is_kept_where_the_tokenizer_cuts_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"
    found = tokenize(tokenizer, 6, ("a b c d e", "", ["x"]))
    tokenizer.truncation_side = "right"
    assert read(tokenizer, found["input_ids"][0]) == [["[CLS]", "d", "e", "[SEP]", "x", "[SEP]"]]


def test_a_question_and_a_choice_that_leave_no_room_are_told(tokenizer):
    rows = [
        ("a b c", "d", ["x", "y"]),
        ("a b c", "d e", ["x", "x y z"]),
        ("", "a b c d e", ["x", "y"]),
        ("", "a b c d _ f", ["x y", "y"]),
    ]
    with pytest.raises(InputError) as caught:
        tokenize(tokenizer, 8, *rows)
    found = caught.value.problems
    assert [problem.partition(":")[0] for problem in found] == [
        "train, row 2",
        "train, row 3",
        "train, row 4",
    ]
    assert "with choice 2 needs 9 tokens, but there is room for 8" in found[0]
    assert "with choice 1 needs 9 tokens" in found[1]
    assert all("--max_seq_length" in problem for problem in found)
    tokenize(tokenizer, 9, *rows)


def test_a_row_is_the_same_whatever_its_neighbours(tokenizer):
    rows = [("a b c d", "e", ["x", "y"]), ("", "f _", ["x", "y z"]), ("g", "", ["x", "y"])]
    together = tokenize(tokenizer, 7, *rows)
    for number, row in enumerate(rows):
        alone = tokenize(tokenizer, 7, row)
        assert {name: values[number] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }


def rows_of(*counts, labels=None):
    rows = {
        "choices": [[f"{n}\t{letter}\nx" for letter in "abcde"[:count]] for n, count in enumerate(counts)],
        "row number in the source": [2 * n + 1 for n in range(len(counts))],
    }
    return datasets.Dataset.from_dict(rows | ({"label": labels} if labels else {}))


def test_places_beyond_a_rows_choices_are_never_chosen():
    rows = rows_of(2, 3, labels=["place 1", "place 0"])
    answers = [np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.2, 0.7])]
    schema = choices.Choices("label")
    assert schema.chosen(answers, rows).tolist() == [1, 2]
    assert schema.table(answers, rows) == [
        ("row", "number", "text", "probability"),
        (1, 2, "0 b x", "0.3000"),
        (3, 3, "1 c x", "0.7000"),
    ]
    scored = schema.scored(answers, rows)
    assert score(scored) == {"accuracy": 0.5}
    assert by_number(scored) == {"2": {"accuracy": 1.0, "rows": 1}, "3": {"accuracy": 0.0, "rows": 1}}


def test_accuracy_by_number_is_for_rows_that_differ():
    rows = rows_of(2, 2, labels=["place 1", "place 0"])
    scored = choices.Choices("label").scored([[0.2, 0.8], [0.3, 0.7]], rows)
    assert score(scored) == {"accuracy": 0.5}
    assert by_number(scored) == {}
    assert score(None) == by_number(None) == {}


def test_answers_that_are_no_numbers_end_the_run():
    with pytest.raises(RunError):
        choices.Choices("label").chosen([[0.5, float("nan")]], rows_of(2))
