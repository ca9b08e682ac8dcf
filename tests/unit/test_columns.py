import pytest

from triptych.data import columns
from triptych.errors import InputError

NOTHING_ASKED = {"text": None, "summary": None}
LABELLED = {"text": None, "text_pair": None, "label": None}


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


def test_an_ambiguous_or_unknown_column_among_several_is_not_guessed():
    found = problems(["a", "b", "c"], NOTHING_ASKED)
    assert len(found) == 2
    assert all("there are: a, b, c" in problem for problem in found)
    assert "--text_column" in found[0]
    assert "--summary_column" in found[1]
    assert "article or body?" in problems(["article", "body", "summary"], NOTHING_ASKED)[0]


def test_of_exactly_two_columns_the_first_is_the_text_or_what_is_not_known_to_be_another(caplog):
    assert columns.resolve(["a", "b"], NOTHING_ASKED) == {"text": "a", "summary": "b"}
    assert "'a' for the text (--text_column), 'b' for the summary (--summary_column)" in caplog.text
    assert columns.resolve(["headline", "b"], NOTHING_ASKED) == {"text": "b", "summary": "headline"}
    assert columns.resolve(["label", "b"], LABELLED) == {"text": "b", "label": "label"}
    assert columns.resolve(["a", "b"], {"text": "b", "summary": None}) == {"text": "b", "summary": "a"}
    assert columns.resolve(["review"], {"text": None}) == {"text": "review"}
    # A name that is wrong is told alone.
    assert len(problems(["a", "b"], {"text": "c", "summary": None})) == 2
    # Beside the rows' numbers; and nothing is taken for what rows to predict may lack.
    assert columns.resolve(["idx", "a", "label"], LABELLED) == {"text": "a", "label": "label"}
    wanted = (NOTHING_ASKED, None, None, True, None, ("summary",))
    assert "Which column is the text" in problems(["author", "story"], *wanted)[0]


@pytest.mark.parametrize("pair", columns.PAIRS)
def test_pairs_are_found_by_their_names_where_pairs_are_wanted(pair, caplog):
    first, second = pair
    found = columns.resolve(["idx", first, second, "label"], LABELLED)
    assert found == {"text": first, "text_pair": second, "label": "label"}
    assert f"{first!r} for the text" in caplog.text
    assert f"{second!r} for the text pair" in caplog.text
    assert len(caplog.records) == 1
    assert columns.resolve([first, "label"], LABELLED) == {"text": first, "label": "label"}
    assert columns.resolve(["text", first, second, "label"], LABELLED) == {"text": "text", "label": "label"}


def test_another_split_gives_the_names_and_nothing_is_guessed_beside_them(caplog):
    before = {"text": "review", "label": "stars"}
    assert columns.resolve(["stars", "review", "id"], LABELLED, before=before) == before
    assert not caplog.records
    with pytest.raises(InputError, match="Which column is the label"):
        columns.resolve(["id", "review"], LABELLED, before=before)


def test_the_texts_of_several_columns_are_one_with_a_delimiter_or_more_than_two():
    assert columns.joined("a,b", None) == columns.joined("a", " ") == []
    assert columns.joined("a, b", " ") == ["a", "b"]
    assert columns.joined("a,b,c", None) == ["a", "b", "c"]
    assert columns.text_roles("a,b,c") == {"text": "a + b + c"}
    assert columns.text_roles("a,b") == {"text": "a", "text_pair": "b"}
    assert columns.text_roles(None) == {"text": None, "text_pair": None}


def test_all_missing_columns_come_at_once_with_what_may_be_meant():
    found = problems(["Article", "highlights"], {"text": "artcle", "summary": "highlight"}, None)
    assert "'artcle'" in found[0]
    assert "did you mean 'Article'?" in found[0]
    assert "Article, highlights" in found[0]
    assert "did you mean 'highlights'?" in found[1]


def test_two_roles_do_not_share_a_column():
    assert "both 'a'" in problems(["a", "b"], {"text": "a", "summary": "a"})[0]
    # What was asked for as the text is not then guessed as the summary.
    wanted = {"text": "summary", "summary": None}
    assert "Which column is the summary" in problems(["summary", "b", "c"], wanted)[0]


def test_nothing_wanted_and_nothing_there():
    assert columns.resolve(["a"], {}) == {}
    assert "there are: none" in problems([], {"text": None})[0]
