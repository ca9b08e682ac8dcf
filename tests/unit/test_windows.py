"""Windows of words for six kinds of tokenizers: no word is lost or doubled, and each has its tag."""

import random
from types import SimpleNamespace

import pytest

from triptych.data import windows
from triptych.errors import InputError
from triptych.models import tokenizers as ours

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from small_tokenizers import KINDS, SPECIAL, TEXT, of_kind, wrapped  # noqa: E402

ODD = [
    *("\u00a0", "\u200b", "\ufeff", "\u200d", "a\u00a0b", "\u0301", "e\u0301\u0302", " "),
    *("👩‍👩‍👧‍👦", "🏳️‍🌈", "שלום", "مرحبا", "\u202eabc", "नमस्ते", "東京タワー", "ﬁ", "x" * 5000, "ab" * 40),
]


def flags(**keywords):
    given = {"max_seq_length": None, "stride": 4, "label_all_tokens": False}
    return SimpleNamespace(**{**given, **keywords})


def rows_of(draw, number):
    ordinary = TEXT.split()
    return [
        [
            draw.choice(ODD) if draw.random() < 0.15 else draw.choice(ordinary)
            for _ in range(draw.randint(1, 60))
        ]
        for _ in range(number)
    ]


def kept(tokenizer, row):
    """The words that the tokenizer makes something of, each encoded by itself."""
    return [
        number
        for number, word in enumerate(row)
        if tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_word_is_in_one_window_with_its_tag(kind, side):
    tokenizer = of_kind(kind, truncation_side=side)
    rows = [*rows_of(random.Random(1), 40), ODD, ["x" * 5000], ["\u200b"]]
    tags = [[7 * number % 5 for number in range(len(row))] for row in rows]
    found = windows.cut(rows, tags, tokenizer, flags(), 16)
    assert max(map(len, found["input_ids"])) <= 16
    several = dropped = 0
    for row, (words, numbers) in enumerate(zip(rows, tags, strict=True)):
        of_row = [n for n, other in enumerate(found["row"]) if other == row]
        assert of_row
        places = [
            (word, label, ids[place])
            for n in of_row
            for place, (word, label, ids) in enumerate(
                zip(found["words"][n], found["labels"][n], [found["input_ids"][n]] * 10**4, strict=False)
            )
            if word != -100 or label != -100
        ]
        assert sorted(word for word, _, _ in places) == kept(tokenizer, words)
        for word, label, token in places:
            assert label == numbers[word]
            alone = tokenizer([words[word]], is_split_into_words=True, add_special_tokens=False)
            assert token == alone["input_ids"][0], "not the first token of the word"
        several += len(of_row) > 1
        dropped += len(places) < len(words)
    assert several > 20
    assert found["row"] == sorted(found["row"])
    assert dropped > 5 or kind not in ("wordpiece", "metaspace", "characters", "whole words")


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_becomes_the_same_whatever_its_neighbours(kind):
    tokenizer = of_kind(kind)
    rows = rows_of(random.Random(2), 12)
    tags = [list(range(len(row))) for row in rows]
    together = windows.cut(rows, tags, tokenizer, flags(), 16)
    for row in range(len(rows)):
        alone = windows.cut([rows[row]], [tags[row]], tokenizer, flags(), 16)
        for name in alone.keys() - {"row"}:
            assert alone[name] == [
                value for value, of in zip(together[name], together["row"], strict=True) if of == row
            ]


def whole_words(ends=("<s>", "</s>"), **keywords):
    """A tokenizer of a token a word, so that places can be counted."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *map(str, range(100))])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return wrapped(backend, ends, **keywords)


def test_a_word_belongs_to_the_window_in_whose_middle_it_is():
    row = [str(number) for number in range(12)]
    found = windows.cut([row], [list(range(12))], whole_words(), flags(stride=4), 10)
    # Eight words a window, 0 to 7 and 4 to 11: word 5 is two from the end of one, one from that of the other.
    assert [[word for word in one if word >= 0] for one in found["words"]] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10, 11],
    ]
    assert found["labels"] == found["words"]
    assert [ids[1] for ids in found["input_ids"]] == [4, 8]
    # An odd number in common: word 5 is as far from both ends, and stays in the first.
    found = windows.cut([row[:11]], None, whole_words(), flags(stride=5), 10)
    assert [[word for word in one if word >= 0] for one in found["words"]] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7, 8, 9, 10],
    ]


def test_a_long_word_is_read_where_most_of_it_is():
    tokenizer = of_kind("characters")
    found = windows.cut([["The", "r" * 100, "at"]], None, tokenizer, flags(stride=4), 12)
    homes = {word: n for n, words in enumerate(found["words"]) for word in words if word >= 0}
    assert homes[0] == 0
    assert homes[1] == 0, "only the first window has its beginning"
    assert homes[2] == len(found["words"]) - 1
    # Its beginning is in the first two windows; the second has more of it.
    found = windows.cut([["The", "me", "r" * 100]], None, tokenizer, flags(stride=6), 12)
    assert [2 in words for words in found["words"]][:3] == [False, True, False]


def test_without_tags_nothing_counts_and_words_are_known_all_the_same():
    tokenizer = whole_words()
    rows = [["1", "2"], ["3"]]
    assert windows.cut(rows, None, tokenizer, flags(), 16)["labels"] == [[-100] * 4, [-100] * 3]
    found = windows.cut(rows, [None, [6]], tokenizer, flags(), 16)
    assert found["labels"] == [[-100] * 4, [-100, 6, -100]]
    assert found["words"] == [[-100, 0, 1, -100], [-100, 0, -100]]
    assert windows.cut([], None, tokenizer, flags(), 16)["input_ids"] == []


def test_further_tokens_of_a_word_are_inside_of_what_it_begins():
    tokenizer = of_kind("characters")
    tags = [[1, 2, 0]]  # B, I, O
    found = windows.cut([["The", "new", "at"]], tags, tokenizer, flags(label_all_tokens=True), 16, (0, 2, 2))
    assert found["labels"] == [[-100, 1, 2, 2, 2, 2, 2, 0, 0, -100]]
    assert found["words"] == [[-100, 0, -100, -100, 1, -100, -100, 2, -100, -100]]
    # In windows that overlap by more than a word, all its tokens are labelled in the one it belongs to.
    rows, all_tokens = [TEXT.split()], flags(label_all_tokens=True, stride=12)
    found = windows.cut(rows, [[3] * len(rows[0])], tokenizer, all_tokens, 16, (0, 1, 2, 3))
    assert sum(labels.count(3) for labels in found["labels"]) == sum(map(len, rows[0]))


@pytest.mark.parametrize(("ends", "expected"), [(("<s>", "</s>"), [2, 3]), (None, [1])])
def test_a_row_of_which_nothing_is_left_gives_a_window_that_is_not_empty(ends, expected):
    tokenizer = of_kind("wordpiece", ends)
    for row in (["\u200b", "\ufeff"], []):
        found = windows.cut([["The"], row, ["new"]], None, tokenizer, flags(), 16)
        assert found["row"] == [0, 1, 2]
        assert found["input_ids"][1] == expected
        assert found["words"][1] == found["labels"][1] == [-100] * len(expected)
        types = found["token_type_ids"][1] if "token_type_ids" in found else [0] * len(expected)
        assert types == [0] * len(expected)


def test_types_of_tokens_are_given_if_the_tokenizer_has_them():
    typed = whole_words(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    plain = whole_words(model_input_names=["input_ids", "attention_mask"])
    assert windows.cut([["1"]], None, typed, flags(), 16)["token_type_ids"] == [[0, 0, 0]]
    assert "token_type_ids" not in windows.cut([["1"]], None, plain, flags(), 16)


def test_length_of_windows_is_the_flag_or_that_of_the_model():
    tokenizer = whole_words()
    bert = transformers.BertConfig(max_position_embeddings=256)
    assert windows.max_length(tokenizer, bert, flags()) == 256
    assert windows.max_length(tokenizer, bert, flags(max_seq_length=100)) == 100
    assert (
        windows.max_length(tokenizer, transformers.BertConfig(max_position_embeddings=4096), flags()) == 512
    )
    assert (
        windows.max_length(tokenizer, transformers.RobertaConfig(max_position_embeddings=66), flags()) == 64
    )
    assert windows.max_length(tokenizer, transformers.T5Config(), flags()) == 512
    assert windows.max_length(tokenizer, bert, flags(max_seq_length=7, stride=4)) == 7
    with pytest.raises(InputError, match=r"--stride 5.*share at most 4"):
        windows.max_length(tokenizer, bert, flags(max_seq_length=7, stride=5))


def model_args(folder):
    return SimpleNamespace(
        **{"tokenizer_name": None, "model_name_or_path": str(folder), "cache_dir": None},
        **{"model_revision": "main", "trust_remote_code": False},
    )


def saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return folder


def llama_like():
    """Of bytes, with words split before: the setting of the byte level would reach each part of a word."""
    tokenizer = of_kind("bytes")
    splits = tokenizers.pre_tokenizers
    pattern = tokenizers.Regex(r" ?\p{L}+| ?[^\s\p{L}]+|\s+")
    tokenizer.backend_tokenizer.pre_tokenizer = splits.Sequence(
        [splits.Split(pattern, "isolated"), splits.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def roberta_like(cls):
    vocabulary = of_kind("bytes").get_vocab() | {"<mask>": 300}
    return cls(vocab=vocabulary, merges=[])


@pytest.mark.parametrize("make", [lambda: of_kind("bytes"), llama_like, "RobertaTokenizer", "GPT2Tokenizer"])
def test_words_of_bytes_are_those_behind_a_space_also_after_saving(make, tmp_path):
    tokenizer = roberta_like(getattr(transformers, make)) if isinstance(make, str) else make()
    folder = saved(tokenizer, tmp_path / "a")
    loaded = ours.load(model_args(folder), words=True)
    assert type(loaded).__name__ == type(ours.load(model_args(folder))).__name__
    again = transformers.AutoTokenizer.from_pretrained(saved(loaded, tmp_path / "b"))
    plain = ours.load(model_args(folder))
    for words in (["new", "mayor", "river-bank.", "Łukasz"], ["and"]):
        expected = plain(" " + " ".join(words), add_special_tokens=False)["input_ids"]
        assert expected != plain(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
        for one in (loaded, again):
            found = one(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
            assert found == expected, type(one)
    assert "Ġ" not in plain.tokenize("new")[0], "without `words` nothing changes"


def test_no_part_of_a_word_but_its_first_gets_a_space(tmp_path):
    folder = saved(roberta_like(transformers.Qwen2Tokenizer), tmp_path / "a")
    plain = ours.load(model_args(folder))
    expected = plain(" new river-bank.", add_special_tokens=False)["input_ids"]
    for source in (folder, tmp_path / "b"):
        loaded = ours.load(model_args(source), words=True)
        words = ["new", "river-bank."]
        assert loaded(words, is_split_into_words=True, add_special_tokens=False)["input_ids"] == expected
        saved(loaded, tmp_path / "b")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytes"])
def test_other_tokenizers_stay_as_they_are_for_words(kind, tmp_path):
    folder = saved(of_kind(kind), tmp_path)
    loaded, plain = ours.load(model_args(folder), words=True), ours.load(model_args(folder))
    assert loaded.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()
    assert loaded.init_kwargs == plain.init_kwargs


def test_a_tokenizer_that_knows_no_words_is_refused_by_name(tmp_path):
    folder = saved(transformers.ByT5Tokenizer(), tmp_path)
    with pytest.raises(InputError, match=r"ByT5Tokenizer.*tokenizer\.json"):
        ours.load(model_args(folder), words=True)
    assert ours.load(model_args(folder)).__class__.__name__ == "ByT5Tokenizer"
