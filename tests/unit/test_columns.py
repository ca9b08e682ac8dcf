import pytest

from triptych.data import columns
from triptych.errors import InputError

NOTHING_ASKED = {"text": None, "summary": None}


def problems(*args) -> list[str]:
    with pytest.raises(InputError) as caught:
        columns.resolve(*args)
    return caught.value.problems


def test_a_column_asked_for_wins_over_the_known_dataset():
    wanted = {"text": "id", "summary": None}
    found = columns.resolve(["article", "highlights", "id"], wanted, "abisee/cnn_dailymail")
    assert found == {"text": "id", "summary": "highlights"}


@pytest.mark.parametrize("name", ["cnn_dailymail", "abisee/CNN_DailyMail", "./data/cnn_dailymail/"])
def test_a_known_dataset_is_known_by_the_last_part_of_its_name(name):
    found = columns.resolve(["id", "article", "highlights", "title"], NOTHING_ASKED, name)
    assert found == {"text": "article", "summary": "highlights"}


def test_known_columns_that_are_not_there_are_not_used():
    assert columns.resolve(["text", "summary"], NOTHING_ASKED, "xsum") == {
        "text": "text",
        "summary": "summary",
    }


def test_a_guess_by_another_name_is_said_in_the_log(caplog):
    assert columns.resolve(["n", "Body", "headline"], NOTHING_ASKED) == {
        "text": "Body",
        "summary": "headline",
    }
    assert "'Body' for the text" in caplog.text
    assert "--summary_column" in caplog.text


def test_the_roles_own_name_wins_over_its_other_names_and_needs_no_word(caplog):
    found = columns.resolve(["title", "text", "summary", "document"], NOTHING_ASKED)
    assert found == {"text": "text", "summary": "summary"}
    assert not caplog.records


def test_an_ambiguous_or_unknown_column_is_not_guessed_even_from_its_place():
    found = problems(["a", "b"], NOTHING_ASKED)
    assert len(found) == 2
    assert all("there are: a, b" in problem for problem in found)
    assert "--text_column" in found[0]
    assert "--summary_column" in found[1]
    assert "article or body?" in problems(["article", "body", "summary"], NOTHING_ASKED)[0]


def test_all_missing_columns_come_at_once_with_what_may_be_meant():
    found = problems(["Article", "highlights"], {"text": "artcle", "summary": "highlight"}, None)
    assert "'artcle'" in found[0]
    assert "did you mean 'Article'?" in found[0]
    assert "Article, highlights" in found[0]
    assert "did you mean 'highlights'?" in found[1]


def test_two_roles_do_not_share_a_column():
    assert "both 'a'" in problems(["a", "b"], {"text": "a", "summary": "a"})[0]
    # What was asked for as the text is not then guessed as the summary.
    assert (
        "Which column is the summary" in problems(["summary", "b"], {"text": "summary", "summary": None})[0]
    )


def test_nothing_wanted_and_nothing_there():
    assert columns.resolve(["a"], {}) == {}
    assert "there are: none" in problems([], {"text": None})[0]
