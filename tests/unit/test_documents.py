"""Texts, and prompts with completions, as documents of tokens; files that are one text each."""

import gzip
import math
from types import SimpleNamespace

import numpy as np
import pytest

from triptych import arguments, data
from triptych.batching.padding import UNCOUNTED
from triptych.data import documents, readers
from triptych.errors import InputError
from triptych.metrics import perplexity

transformers = pytest.importorskip("transformers")
datasets = pytest.importorskip("datasets")

from small_tokenizers import KINDS, TEXT, of_kind  # noqa: E402

TEXTS = [TEXT[:30], "Zoë at 10:30", "a", "", "  and   they\nwalked "]


def settings(**given):
    return SimpleNamespace(**{"add_eos": True} | given)


@pytest.mark.parametrize("ends", [("<s>", "</s>"), None], ids=["ends", "no ends"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_end_and_no_first_token_is_learnt(kind, ends):
    tokenizer = of_kind(kind, ends, eos_token="</s>", bos_token="<s>")
    made = documents.tokenized({"text": TEXTS}, {"text": "text"}, tokenizer, settings())
    for text, ids, labels, size, prompt in zip(TEXTS, *made.values(), strict=True):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert ids[int(bool(ends)) : -1] == own
        assert labels == [*ids[1:], UNCOUNTED]
        assert prompt == len(ids) - 1
        if ends:
            assert size == len(text.encode())
        elif own and kind in ("bytes", "wordpiece", "whole words"):
            first = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            assert size == len(text[first[0][1] :].encode()) < len(text.encode())


def test_without_ends_nothing_is_added():
    tokenizer = of_kind("bytes", ("<s>", "</s>"), eos_token="</s>", bos_token="<s>")
    made = documents.tokenized({"text": ["a"]}, {"text": "text"}, tokenizer, settings(add_eos=False))
    assert made["input_ids"] == [tokenizer("a")["input_ids"][:-1]]


def test_completions_alone_are_learnt():
    tokenizer = of_kind("bytes", None, eos_token="</s>")
    rows = {"q": ["and", "the", ""], "a": [" they", " river", "Zoë"]}
    columns = {"prompt": "q", "completion": "a"}
    made = documents.tokenized(rows, columns, tokenizer, settings())
    for prompt, completion, ids, labels, size, length in zip(
        rows["q"], rows["a"], *made.values(), strict=True
    ):
        before, behind = (tokenizer(text)["input_ids"] for text in (prompt, completion))
        assert ids == [*before, *behind, tokenizer.eos_token_id]
        learnt = [*behind, tokenizer.eos_token_id][0 if before else 1 :]
        assert labels == [UNCOUNTED] * (len(ids) - len(learnt) - 1) + learnt + [UNCOUNTED]
        assert size == len(completion.encode())
        assert length == len(before)
    # Of rows to predict the completions may be missing.
    made = documents.tokenized({"q": ["and"]}, columns, tokenizer, settings())
    assert made["input_ids"] == [tokenizer("and")["input_ids"]]


def test_bytes_go_with_rows_to_evaluate():
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    made = datasets.Dataset.from_dict({documents.BYTES: [1, 2]})
    found = documents.with_bytes({"train": rows, "test": rows}, {"train": made, "test": made})
    assert documents.BYTES not in found["train"].column_names
    assert found["test"][documents.BYTES][:] == [1, 2]


def answers(*nats):
    """One row with a piece a value: two tokens, one of them right."""
    return [[np.array([value, 1.0, 2.0]) for value in row] for row in nats]


def scored(columns, found):
    return perplexity.score(found, datasets.Dataset.from_dict(columns))


@pytest.mark.parametrize("bos", [[], [5]])
def test_what_fills_a_hole_comes_last_in_both_orders(bos):
    """Put together again a row is the text: what is before the hole, in it, and behind it."""
    text, end, (prefix, suffix, middle) = list(range(10, 30)), [1], (2, 3, 4)
    columns = {
        "input_ids": [bos + text + end] * 200,
        "labels": [[0]] * 200,
        "prompt": [len(bos + text)] * 200,
    }
    vocabulary = {"<p>": prefix, "<s>": suffix, "<m>": middle}
    tokenizer = SimpleNamespace(bos_token_id=next(iter(bos), None), get_vocab=lambda: vocabulary)
    given = SimpleNamespace(fim_rate=0.5, fim_spm_rate=0.5, fim_tokens="<p>,<s>,<m>")
    rows = {"train": datasets.Dataset.from_dict(columns)}
    made = documents.with_holes(rows, tokenizer, given, seed=1)["train"]
    counts = {"whole": 0, "behind first": 0, "behind second": 0}
    for ids, labels in zip(made["input_ids"], made["labels"], strict=True):
        assert labels == [*ids[1:], -100]
        assert (ids[: len(bos)], ids[-1:]) == (bos, end)
        ids = ids[len(bos) : -1]
        if ids == text:
            counts["whole"] += 1
            continue
        assert ids[0] == prefix
        at, last = ids.index(suffix), ids.index(middle)
        before, behind, filling = ids[1:at], ids[at + 1 : last], ids[last + 1 :]
        assert before + filling + behind == text
        counts["behind second" if before else "behind first"] += 1
    assert 75 < counts["whole"] < 125
    assert min(counts["behind first"], counts["behind second"]) > 30


def test_scores_are_of_all_tokens_together():
    found = scored({documents.BYTES: [3, 5]}, answers([2.0, 4.0], [3.0]))
    assert found == pytest.approx(
        {"perplexity": math.exp(9 / 6), "accuracy": 0.5, "bits_per_byte": 9 / math.log(2) / 8}
    )
    assert scored({documents.BYTES: [3]}, [[]]) == {}
    assert scored({documents.BYTES: [3]}, answers([1e4]))["perplexity"] is None


def by_source(columns):
    return perplexity.by_source(answers([2.0], [4.0], [6.0]), datasets.Dataset.from_dict(columns))


def test_scores_by_source():
    columns = {documents.BYTES: [1, 1, 1], "domain": ["web", "book", "web"]}
    found = by_source(columns)
    assert list(found) == ["book", "web"]
    assert found["web"] == pytest.approx({"loss": 2.0, "perplexity": math.exp(2), "rows": 2})
    assert found["book"]["rows"] == 1
    # `source` before `domain`, and nothing of one source alone
    columns["source"] = ["x", "x", "x"]
    assert by_source(columns) == {}


def test_table_of_rows():
    rows = datasets.Dataset.from_dict({data.NUMBER: [1, 3], data.TOTAL: [3, 3]})
    assert perplexity.table([*answers([2.0, 4.0]), []], rows) == [
        ["row", "tokens", "nats", "perplexity"],
        [1, 4, "6.0000", f"{math.exp(1.5):.4f}"],
        [3, 0, "", ""],
    ]


UGLY = "\ufeffdef f():\r\n\treturn 'é'\n\n"


def test_files_of_other_kinds_are_a_text_each(tmp_path):
    (tmp_path / "a.py").write_bytes(UGLY.encode())
    (tmp_path / "b.py").write_text("")
    (tmp_path / "c.TXT").write_text("one\ntwo\n")
    (tmp_path / "d.py.gz").write_bytes(gzip.compress(b"x = 1\n"))
    (tmp_path / "e.jsonl").write_text('{"text": "row"}\n')

    def rows(format):
        problems = []
        paths, found = readers.find_files(str(tmp_path / "*"), format)
        assert not found
        return [
            row["text"] for path in paths for _, row in readers.read_rows(path, problems, None, format)
        ], problems

    assert rows(readers.DOCUMENTS) == ([UGLY[1:], "", "one", "two", "x = 1\n", "row"], [])
    assert rows(readers.WHOLE_TEXTS) == ([UGLY[1:], "", "one\ntwo\n", "x = 1\n", "row"], [])
    (tmp_path / "a.py").write_bytes(b"x = 1\ny = '\xe9'\n")
    assert "line 2: byte 0xe9 is not UTF-8" in rows(readers.DOCUMENTS)[1][0]
    assert "extension must be one of" in readers.find_files(str(tmp_path / "a.py"))[1][0]


def problems(**given):
    return arguments.CausalArguments(**{"train_file": "none.txt", **given}).problems()


@pytest.mark.parametrize(
    ("given", "sign"),
    [
        (dict(block_size=1), "--block_size 1: must be at least 2"),
        (dict(validation_split_percentage=100), "must be above 0 and below 100"),
        (dict(validation_split_percentage=5, validation_file="v.txt"), "give one of them"),
        (dict(validation_split_percentage=5, streaming=True), "--streaming rows is not known"),
        (dict(completion_column="a"), "--completion_column needs --prompt_column"),
        (dict(text_column="a", prompt_column="b"), "--text_column and --prompt_column"),
        (dict(do_sample=True), "--do_sample is for --max_new_tokens"),
        (dict(num_beams=4), "--num_beams is for --max_new_tokens"),
        (dict(top_p=0.5, max_new_tokens=3), "--top_p is for --do_sample"),
        (dict(top_p=1.5, max_new_tokens=3, do_sample=True), "--top_p 1.5"),
        (dict(temperature=0.0, max_new_tokens=3, do_sample=True), "--temperature 0"),
        (dict(do_sample=True, num_beams=2, max_new_tokens=3), "leave out --num_beams"),
    ],
)
def test_flags_that_do_not_go_together(given, sign):
    assert sum(sign in problem for problem in problems(**given)) == 1


def test_first_rows_are_held_out(tmp_path):
    (tmp_path / "rows.txt").write_text("".join(f"row {n}\n" for n in range(40)))

    def load(share, **phases):
        given = {"train_file": str(tmp_path / "rows.txt"), "validation_split_percentage": share}
        args = SimpleNamespace(
            **{"do_train": True, "do_eval": True, "do_predict": False} | phases,
            chosen=frozenset(),
            eval_strategy="no",
            seed=42,
        )
        return data.load(arguments.CausalArguments(**given), args)[0]

    found = load(5.0)
    assert list(found["validation"]["text"]) == ["row 0", "row 1"]
    assert list(found["train"]["text"]) == [f"row {n}" for n in range(2, 40)]
    assert list(load(0.1)["validation"]["text"]) == ["row 0"]
    assert list(load(5.0, do_train=False)) == ["validation"]
    assert len(load(5.0, do_eval=False)["train"]) == 40
    (tmp_path / "rows.txt").write_text("one\n")
    with pytest.raises(InputError, match="leaves none"):
        load(5.0)
