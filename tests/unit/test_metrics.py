"""ROUGE against rouge-score itself, sentence splitting, the lead baseline, and metrics of labels."""

# ruff: noqa: RUF001 (the punctuation of other scripts is meant)

import random
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from triptych import metrics
from triptych.data.label_schema import SINGLE
from triptych.errors import InputError
from triptych.metrics import labels, text

ASCII = "".join(map(chr, range(128)))
WORDS = "The cats sat on 3.5 mats; caresses, ponies, generalities ran (well-known) in the U.S. Army's a1 _x_"

UNUSED = SimpleNamespace(do_train=False, metric_for_best_model=None)


def test_importing_metrics_loads_no_heavy_package():
    heavy = {
        "evaluate",
        "datasets",
        "rouge_score",
        "nltk",
        "torch",
        "tensorflow",
        "jax",
        "transformers",
        "numpy",
    }
    code = f"import sys, triptych.metrics; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_unknown_metric_names_those_there_are():
    with pytest.raises(ValueError, match=r"no metric 'rogue'; there are: accuracy, .*rouge"):
        metrics.load("rogue")


@pytest.mark.parametrize(
    "sentences",
    [
        ["Mr. Smith met Dr. J. K. Rowling in Washington D.C. on Jan. 5.", "He left."],
        ["The U.S. Army grew 3.5 percent to $4.2 million.", "In the U.S.", "The law differs."],
        [
            "Apples, pears, etc.",
            "The rest.",
            "Apple Inc. Chief Cook spoke (see Fig. 3).",
            "So did I.",
            "Nobody left.",
        ],
        ['"Really?" he asked.', 'She said "Go."', "Then left.", "(It rained.)", "It’s “over.”", "Good!"],
        ["Wait... what?", "Well...", "Maybe not!", "Hm…", "Next."],
        [
            "1. First do this.",
            "2. Then see No. 5.",
            "No.",
            "Use Node.js 3.11 at example.com.",
            "30 people came.",
        ],
        ["the cat sat.", "the dog ran at 5 p.m.", "the end"],
        ["in London .", "He said `` go now ."],
        ["Москва растёт.", "Она большая?", "Да!"],
        ["第一行没有句号", "第二行"],
    ],
    ids=lambda sentences: sentences[0][:12],
)
def test_sentences_are_found_again_after_joining(sentences):
    separator = "\n" if sentences[0].startswith("第") else " "
    assert text.split_sentences(separator.join(sentences)) == sentences


def test_full_stops_without_a_space_split():
    assert text.split_sentences("今天很好。我们去吧！「はい。」３．５倍です．終") == [
        "今天很好。",
        "我们去吧！",
        "「はい。」",
        "３．５倍です．",
        "終",
    ]
    assert text.split_sentences("यह है। वह था।") == ["यह है।", "वह था।"]


def test_blank_text_has_no_sentence():
    assert text.split_sentences("") == text.split_sentences(" \n\n ") == []


@pytest.mark.parametrize("piece", ["Mr. B ", 'Mr. a b c. D e."', ".", "? ", "a.)"])
def test_splitting_takes_linear_time_on_degenerate_output(piece):
    start = time.perf_counter()
    text.split_sentences(piece * (60_000 // len(piece)))  # 0.1 s; quadratic: 10 s and more
    assert time.perf_counter() - start < 3


def test_lead_baseline_counts_words_and_cjk_characters():
    assert text.lead_baseline(["a b  c\nd e", "今天很好 yes it", "a", " "], 3) == ["a b c", "今天很", "a", ""]
    assert text.lead_baseline(["今天 yes it"], 3) == ["今天 yes"]
    assert text.lead_baseline(["a b"], 0) == [""]


@pytest.fixture
def rouge(monkeypatch, tmp_path):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    return metrics.load("rouge")


@pytest.mark.parametrize("use_stemmer", [True, False])
def test_tokens_of_ascii_text_equal_those_of_rouge_score(use_stemmer):
    pytest.importorskip("evaluate")
    from rouge_score.tokenizers import DefaultTokenizer

    from triptych.metrics.rouge import WordTokenizer

    ours, theirs = WordTokenizer(use_stemmer), DefaultTokenizer(use_stemmer)
    draw = random.Random(0)
    tokens = 0
    for _ in range(500):
        text = draw.choice(["", " "]).join(draw.choices([*ASCII, *WORDS.split()], k=40))
        assert ours.tokenize(text) == theirs.tokenize(text), text
        tokens += len(theirs.tokenize(text))
    assert tokens > 5_000


def test_tokens_beyond_ascii():
    pytest.importorskip("evaluate")
    from triptych.metrics.rouge import WordTokenizer

    tokenize = WordTokenizer().tokenize
    assert tokenize("Café, cafe\u0301 — it’s “naïve”") == ["café", "café", "it", "s", "naïv"]
    assert tokenize("東京タワーは１２m") == [*"東京タワーは", "12m"]
    assert tokenize("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert tokenize("한국어 ЁЛКА it´s ™") == ["한국어", "ёлка", "it", "s", "tm"]


def test_rouge_equals_rouge_score_on_ascii_rows(rouge):
    from rouge_score.rouge_scorer import RougeScorer

    draw = random.Random(1)
    predictions, references = (
        [
            "\n".join("Then " + " ".join(draw.choices(WORDS.split(), k=9)) + " end." for _ in range(3))
            for _ in range(20)
        ]
        for _ in range(2)
    )
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    for use_stemmer in (True, False):
        scorer = RougeScorer(names, use_stemmer=use_stemmer)
        rows = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
        expected = {name: sum(row[name].fmeasure for row in rows) / len(rows) for name in names}
        found = rouge.compute(
            predictions=[text.replace("\n", " ") for text in predictions],
            references=references,
            use_stemmer=use_stemmer,
        )
        assert found == pytest.approx(expected, abs=1e-12)
        assert expected["rougeLsum"] > expected["rougeL"] > 0.1


def test_stemming_is_the_default(rouge):
    assert rouge.compute(predictions=["the dogs running"], references=["the dog runs"])["rouge1"] == 1.0


def test_identical_text_of_any_script_scores_one(rouge):
    texts = ["Привет, большой мир.", "今天天气很好。", "صباح الخير", "café"]
    assert rouge.compute(predictions=texts, references=texts)["rouge1"] == 1.0
    assert rouge.compute(predictions=["Привет"], references=["Мир"])["rouge1"] == 0.0


def test_empty_prediction_scores_zero_and_no_rows_are_an_error(rouge):
    assert rouge.compute(predictions=["", "a"], references=["a", "a"])["rouge1"] == 0.5
    with pytest.raises(ValueError, match="no rows"):
        rouge.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="Mismatch"):
        rouge.compute(predictions=["a"], references=["a", "b"])


def test_metrics_in_use_at_the_same_time_share_no_file(rouge, tmp_path):
    other = metrics.load("rouge")
    rouge.add_batch(predictions=["a", "b"], references=["a", "b"])
    other.add_batch(predictions=["a", "b"], references=["c", "d"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert other.compute()["rouge1"] == 0.0
    assert rouge.compute()["rouge1"] == 1.0


def value(name, predictions, references):
    (found,) = metrics.load(name).compute(predictions=predictions, references=references).values()
    return found


def test_metrics_of_labels_are_those_of_their_definitions():
    # Of label 0 one of two is found and nothing else taken for it; of 1 both, with one too many; 2 is missed.
    predictions, references = [0, 1, 1, 1, 0], [0, 0, 1, 1, 2]
    assert value("accuracy", predictions, references) == pytest.approx(3 / 5)
    f1 = [2 * 1 / (2 + 2), 2 * 2 / (3 + 2), 0]
    assert value("f1_macro", predictions, references) == pytest.approx(sum(f1) / 3)
    assert value("f1", predictions, references) == pytest.approx(sum(f1) / 3)
    assert value("f1_weighted", predictions, references) == pytest.approx((2 * f1[0] + 2 * f1[1]) / 5)
    assert value("f1_micro", predictions, references) == pytest.approx(3 / 5)
    assert value("f1", [1, 1, 0, 0], [1, 0, 1, 0]) == pytest.approx(0.5)  # of label 1, as GLUE has it
    several = (
        [[1, 1, 0], [0, 1, 0]],
        [[1, 0, 1], [0, 1, 0]],
    )  # 2 of 3 found are right, and 2 of 3 wanted found
    assert value("f1", *several) == value("f1_micro", *several) == pytest.approx(2 / 3)


def test_the_combined_score_is_the_mean_of_those_asked_for():
    rows = {"predictions": [1, 1, 0, 0, 0], "references": [1, 0, 1, 0, 0]}
    names = labels.names_for(SINGLE, "accuracy,f1,combined_score", UNUSED)
    found = {}
    for name in names:
        found |= metrics.load(name).compute(**rows)
    assert found == {"accuracy": 0.6, "f1": 0.5, "combined_score": pytest.approx(0.55)}
    with pytest.raises(InputError, match="give two or more beside it"):
        labels.names_for(SINGLE, "f1,combined_score", UNUSED)
    # (tp * tn - fp * fn) / sqrt(...) with 3, 1, 1, 0
    assert value("matthews_correlation", [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]) == pytest.approx(3 / 24**0.5)


def test_metrics_of_several_labels_count_rows_or_decisions():
    predictions, references = [[1, 0], [1, 1], [0, 0]], [[1, 0], [1, 0], [0, 1]]
    assert value("accuracy", predictions, references) == pytest.approx(1 / 3)
    assert value("f1_micro", predictions, references) == pytest.approx(2 * 2 / (3 + 3))
    assert value("f1_macro", predictions, references) == pytest.approx((1 + 0) / 2)


def test_metrics_of_values_see_order_and_size():
    assert value("pearson", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1)
    assert value("spearman", [1.0, 10.0, 100.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert value("mean_squared_error", [1.0, 2.0], [1.0, 4.0]) == pytest.approx(2)
    assert value("pearson", [1.0, 1.0], [1.0, 2.0]) == value("spearman", [1.0, 2.0], [1.0, 1.0]) == 0


def test_metrics_that_do_not_suit_the_labels_are_refused():
    from triptych.errors import InputError

    with pytest.raises(
        InputError, match="--metric_name pearson: for a single label classification there are"
    ):
        labels.names_for("single_label_classification", "accuracy, pearson", UNUSED)
    for kind in labels.OF_KIND:
        assert labels.names_for(kind, None, UNUSED)
