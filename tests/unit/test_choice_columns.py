import pytest

from triptych.data import choice_columns
from triptych.errors import InputError

NO_FLAGS = dict.fromkeys(choice_columns.FLAGS)


def find(available, needs_label=True, before=None, **flags):
    given = choice_columns.wanted(NO_FLAGS | flags)
    return choice_columns.find(available, given, needs_label, before=before)


def problems(available, *args, **flags) -> list[str]:
    with pytest.raises(InputError) as caught:
        find(available, *args, **flags)
    return caught.value.problems


def endings(*names):
    return {f"choice {number}": name for number, name in enumerate(names, 1)}


KNOWN = {
    "SWAG": (
        "video-id fold-ind startphrase sent1 sent2 gold-source ending0 ending1 ending2 ending3 label",
        {"context": "sent1", "question": "sent2", "label": "label"}
        | endings("ending0", "ending1", "ending2", "ending3"),
    ),
    "RACE": (
        "example_id article answer question options",
        {"context": "article", "question": "question", "choices": "options", "label": "answer"},
    ),
    "HellaSwag": (
        "ind activity_label ctx_a ctx_b ctx endings source_id split split_type label",
        {"context": "ctx", "choices": "endings", "label": "label"},
    ),
    "CommonsenseQA, ARC": (
        "id question question_concept choices answerKey",
        {"question": "question", "choices": "choices", "label": "answerKey"},
    ),
    "OpenBookQA": (
        "id question_stem choices answerKey",
        {"question": "question_stem", "choices": "choices", "label": "answerKey"},
    ),
    "PIQA": ("goal sol1 sol2 label", {"question": "goal", "label": "label"} | endings("sol1", "sol2")),
    "COPA": (
        "premise choice1 choice2 question idx label",
        {"context": "premise", "question": "question", "label": "label"} | endings("choice1", "choice2"),
    ),
    "Cosmos QA": (
        "id context question answer0 answer1 answer2 answer3 label",
        {"context": "context", "question": "question", "label": "label"}
        | endings("answer0", "answer1", "answer2", "answer3"),
    ),
    "Social IQa": (
        "context question answerA answerB answerC label",
        {"context": "context", "question": "question", "label": "label"}
        | endings("answerA", "answerB", "answerC"),
    ),
    "WinoGrande": (
        "sentence option1 option2 answer",
        {"question": "sentence", "label": "answer"} | endings("option1", "option2"),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_columns_of_known_datasets(name):
    available, expected = KNOWN[name]
    found = find(available.split())
    assert found == expected
    convention = choice_columns.convention(found)
    assert (convention or (name,))[0] == name
    assert (convention is None) == (name not in choice_columns.CONVENTIONS)


def test_every_convention_is_that_of_a_known_dataset():
    assert choice_columns.CONVENTIONS.keys() <= KNOWN.keys()


def test_own_columns_in_any_order_and_case():
    names = ["Choice_10", *[f"Choice_{number}" for number in range(9, 0, -1)], "Answer", "Prompt"]
    found = find(names)
    assert choice_columns.of_choices(found) == [f"Choice_{number}" for number in range(1, 11)]
    assert (found["question"], found["label"]) == ("Prompt", "Answer")


def test_flags_win_and_a_context_that_is_named_wants_no_question():
    names = ["text", "summary", "question", "choices", "choice", "a", "b"]
    found = find(names, context="summary")
    assert found == {"context": "summary", "choices": "choices", "label": "choice"}
    found = find(names, question="text", choices=" b, a ", label="summary")
    assert found == {"question": "text", "choice 1": "b", "choice 2": "a", "label": "summary"}
    assert find(names, choices="a", label="b")["choices"] == "a"


def test_letters_alone_are_choices_where_nothing_else_is():
    """As tables with the questions of RACE and MMLU have them."""
    found = find(["Article", "Question", "A", "B", "C", "D", "Answer"])
    assert found == {"context": "Article", "question": "Question", "label": "Answer"} | endings(*"ABCD")
    found = find(["question", "a", "b", "choice1", "choice2", "label"])
    assert choice_columns.of_choices(found) == ["choice1", "choice2"]


def test_what_another_split_takes_comes_first():
    before = find(["story", "question", "options", "answer"])
    names = ["context", "story", "question", "choices", "options", "label", "answer"]
    assert find(names, before=before) == before
    assert find(names)["context"] == "context"
    test = ["story", "question", "options"]
    assert find(test, needs_label=False, before=before) == {
        role: name for role, name in before.items() if role != "label"
    }


def test_columns_that_form_no_question():
    several = problems(["one", "two"])
    assert len(several) == 3
    for problem, flag, looked_for in zip(
        several,
        ("--choices_columns", "--question_column", "--label_column_name"),
        ("options", "goal", "answerkey"),
        strict=True,
    ):
        assert flag in problem
        assert looked_for in problem
        assert "there are: one, two" in problem
    (problem,) = problems(["question", "answer", "choice1", "choice3"])
    assert "choice1, choice3, do not follow one another" in problem
    (problem,) = problems(["question", "answer", "choice2", "choice3"])
    assert "do not follow" in problem
    (problem,) = problems(["question", "choices"])
    assert "Which column is the label?" in problem
    assert find(["question", "choices"], needs_label=False)


def test_names_that_are_not_there_or_twice():
    names = ["articel", "choice1", "choice2", "label"]
    (problem,) = problems(names, context="article")
    assert problem == (
        "--context_column 'article': no such column; did you mean 'articel'? "
        "there are: articel, choice1, choice2, label."
    )
    (problem,) = problems(names, context="articel", choices="choice1,choise2")
    assert "--choices_columns 'choise2'" in problem
    (problem,) = problems(names, context="articel", question="articel")
    assert "must differ" in problem


def test_the_log_says_what_was_taken(caplog):
    find(["article", "question", "options", "answer"])
    (record,) = caplog.records
    for name in ("'article' for the context", "'options' for the choices", "'answer' for the label"):
        assert name in record.message
    assert "'question'" not in record.message  # by its own name
    caplog.clear()
    find(["context", "question", "choices", "label"])
    assert not caplog.records
