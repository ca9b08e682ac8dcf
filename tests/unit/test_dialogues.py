"""Dialogues by a tokenizer's template, of which the assistant's turns are learnt; holes in texts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from triptych.batching.padding import UNCOUNTED
from triptych.data import ROW, dialogues, documents
from triptych.errors import InputError

pytest.importorskip("jinja2")
datasets = pytest.importorskip("datasets")

from small_tokenizers import of_kind  # noqa: E402
from tokenizers import decoders  # noqa: E402

PLAIN = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
# Writes what was thought in the last turn alone, as Qwen3's
THINKING = (
    "{% for m in messages %}<s>{{ m['role'] }}\n"
    "{% if loop.last and m['role'] == 'assistant' %}<think>{{ m['thought'] }}</think>{% endif %}"
    "{{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
STRICT = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}" + PLAIN
OTHER = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Who met Łukasz?"},
    {"role": "assistant", "content": "Zoë", "thought": "the mayor"},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "At 10:30.", "thought": "late"},
]


def tokenizer(template=PLAIN, **special):
    made = of_kind("bytes", None, eos_token="</s>", bos_token="<s>", **special)
    made.backend_tokenizer.decoder = decoders.ByteLevel()
    made.chat_template = template
    return made


def tokenized(talks, template=PLAIN):
    rows = {"messages": [json.dumps(talk) for talk in talks]}
    made = documents.tokenized(
        rows, {"messages": "messages"}, tokenizer(template), SimpleNamespace(add_eos=True)
    )
    return [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]


def learnt(row, spoken):
    """The texts of the runs of tokens that are learnt."""
    runs, before = [], UNCOUNTED
    for label in row["labels"]:
        if label != UNCOUNTED:
            runs = [*runs, [label]] if before == UNCOUNTED else [*runs[:-1], [*runs[-1], label]]
        before = label
    return [spoken.decode(run) for run in runs]


def test_every_turn_of_the_assistant_is_learnt_with_its_end():
    (row,) = tokenized([TALK])
    spoken = tokenizer()
    assert learnt(row, spoken) == ["Zoë</s>\n", "At 10:30.</s>\n"]
    text = spoken.apply_chat_template(TALK, tokenize=False)
    assert spoken.decode(row["input_ids"]) == text
    assert row[documents.BYTES] == len("Zoë</s>\nAt 10:30.</s>\n".encode())
    prompt = spoken.decode(row["input_ids"][: row["prompt"]])
    assert prompt == spoken.apply_chat_template(TALK[:-1], tokenize=False, add_generation_prompt=True)


def test_template_that_changes_earlier_turns_gives_a_document_a_turn():
    rows = tokenized([TALK[:3], TALK], THINKING)
    spoken = tokenizer(THINKING)
    assert [row[ROW] for row in rows] == [0, 1, 1]
    assert [learnt(row, spoken) for row in rows] == [
        ["<think>the mayor</think>Zoë</s>\n"],
        ["<think>the mayor</think>Zoë</s>\n"],
        ["<think>late</think>At 10:30.</s>\n"],
    ]
    found = documents.with_bytes(
        {"test": datasets.Dataset.from_dict({"a": [1, 2]})}, {"test": datasets.Dataset.from_list(rows)}
    )
    sizes = [row[documents.BYTES] for row in rows]
    assert found["test"][documents.BYTES][:] == [sizes[0], sizes[1] + sizes[2]]


def test_dialogue_to_be_answered_is_a_prompt():
    (row,) = tokenized([TALK[:2]])
    assert set(row["labels"]) == {UNCOUNTED}
    assert row["prompt"] == len(row["input_ids"])
    assert tokenizer().decode(row["input_ids"]).endswith("<s>assistant\n")


def test_template_without_an_end_gets_one():
    (row,) = tokenized([TALK[:3]], "{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    assert learnt(row, tokenizer()) == ["Zoë\n</s>"]


def test_templates_that_do_not_fit_are_told():
    with pytest.raises(InputError, match="user first"):
        tokenized([TALK], STRICT)
    with pytest.raises(InputError, match="otherwise than it asks"):
        tokenized([TALK], OTHER)


def prepared(values, split="train", **given):
    settings = {"max_new_tokens": None, "kept_columns": ("source",), "overwrite_cache": False} | given
    rows = datasets.Dataset.from_dict({"talk": values, "source": ["x"] * len(values)})
    return dialogues.prepare(rows, "talk", split, SimpleNamespace(**settings))


def test_dialogues_are_read_and_those_without_an_answer_refused():
    rows, columns = prepared([TALK, TALK[:3]])
    assert columns == {"messages": "messages"}
    assert [json.loads(row["messages"]) for row in rows] == [TALK, TALK[:3]]
    assert rows["source"][:] == ["x", "x"]
    with pytest.raises(InputError) as caught:
        prepared([TALK, TALK[:2], TALK[:1], []])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "train, row 2",
        "train, row 3",
    ]
    assert all("no turn of an assistant" in problem for problem in caught.value.problems)
    # Empty ones are left out with those of other tasks.
    assert prepared([TALK, [], None])[0]["messages"][1:] == ["", ""]
    assert len(prepared([TALK[:2]], "test", max_new_tokens=5)[0]) == 1
    with pytest.raises(InputError, match="no turn"):
        prepared([TALK[:2]], "test")
    with pytest.raises(InputError, match="a list of messages"):
        prepared(["Hello"])


ROWS = 4000
FIM = {"fim_rate": 0.5, "fim_spm_rate": 0.25, "fim_tokens": "auto"}


def holed(seed=3, names=("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), begins=True, **given):
    spoken = of_kind("bytes", None, eos_token="</s>", bos_token="<s>")
    spoken.add_special_tokens({"extra_special_tokens": list(names)})
    ids = [[2] * begins + list(range(1000 * n + 1000, 1000 * n + 1100 + n % 20)) + [3] for n in range(ROWS)]
    rows = datasets.Dataset.from_dict(
        {
            "input_ids": ids,
            "labels": [[*row[1:], UNCOUNTED] for row in ids],
            "prompt": [len(row) - 1 for row in ids],
        }
    )
    made = documents.with_holes({"train": rows, "test": rows}, spoken, SimpleNamespace(**FIM | given), seed)
    return rows, made, spoken.convert_tokens_to_ids(list(names))


def test_holes_are_behind_the_text_and_nothing_is_lost():
    rows, made, (prefix, suffix, middle) = holed()
    assert made["test"] is rows
    kinds = {"plain": 0, "psm": 0, "spm": 0}
    lengths = []
    for before, after in zip(rows, made["train"], strict=True):
        ids, text = after["input_ids"], before["input_ids"][1:-1]
        assert after["labels"] == [*ids[1:], UNCOUNTED]
        assert (ids[0], ids[-1]) == (2, 3)
        if prefix not in ids:
            assert ids == before["input_ids"]
            kinds["plain"] += 1
            continue
        first, second, third = (ids.index(token) for token in (prefix, suffix, middle))
        if second == first + 1 and ids[third + 1 : -1] + ids[second + 1 : third] == text:
            # What is behind the hole first, then what is before it and the hole at once
            kinds["spm"] += 1
            continue
        assert first < second < third
        assert ids[first + 1 : second] + ids[third + 1 : -1] + ids[second + 1 : third] == text
        kinds["psm"] += 1
        lengths.append((third - second - 1) / max(1, len(text)))
    assert kinds["plain"] == pytest.approx(ROWS / 2, rel=0.06)
    assert kinds["spm"] == pytest.approx(ROWS / 8, rel=0.25)
    assert np.mean(lengths) == pytest.approx(1 / 3, abs=0.05)


def test_holes_are_those_of_seed_and_row():
    first, again, other = (holed(seed)[1]["train"]["input_ids"][:] for seed in (3, 3, 4))
    assert first == again != other
    assert holed(fim_rate=0.0)[1]["train"]["input_ids"][:] == holed()[0]["input_ids"][:]


def test_tokens_of_holes_are_found_or_named():
    with pytest.raises(InputError, match="--fim_tokens auto: the tokenizer has none"):
        holed(names=("<a>", "<b>", "<c>"))
    assert holed(names=("<a>", "<b>", "<c>"), fim_tokens="<a>, <b>,<c>")[1]
    with pytest.raises(InputError, match="not all three"):
        holed(fim_tokens="<a>,<b>")
