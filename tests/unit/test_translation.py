"""BLEU, chrF and TER against sacrebleu itself, words of languages, and what is written of translations."""

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu

from triptych import data, metrics
from triptych.metrics import translation

datasets = pytest.importorskip("datasets")

WORDS = ["the", "cat", ",", "sat", "on", "a", "(red)", "mat", ";", "it's", "3.5", "m.", "wide", "“fine”", "!"]
CHINESE = ["今天天气很好。", "我们去公园吧!", "他有3.5元钱。", "这是一本书,我喜欢。"]


def corpus(rows: int = 40, seed: int = 0) -> tuple[list[str], list[str]]:
    """Predictions and references that share much and not all."""
    draw = random.Random(seed)
    references = [" ".join(draw.choices(WORDS, k=draw.randint(4, 14))) for _ in range(rows)]
    predictions = [
        " ".join(word for word in text.split() if draw.random() < 0.9) + draw.choice([" end", ""])
        for text in references
    ]
    return predictions, references


def given(**flags) -> SimpleNamespace:
    return SimpleNamespace(**{"source_lang": None, "target_lang": None, "bleu_tokenize": None} | flags)


def score(predictions, references, names=translation.NAMES, **flags):
    rows = datasets.Dataset.from_dict({"source": ["x"] * len(references), "target": references})
    columns = {"source": "source", "target": "target"}
    arguments = (predictions, rows, columns, names, given(**flags))
    return translation.score(*arguments), translation.details(*arguments)


@pytest.fixture(autouse=True)
def said_anew(monkeypatch, tmp_path):
    translation.tokenizer_for.cache_clear()
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))


@pytest.mark.parametrize("seed", [0, 1])
def test_each_metric_is_sacrebleus_over_the_corpus(seed):
    predictions, references = corpus(seed=seed)
    found, _ = score(predictions, references)
    expected = {
        "bleu": sacrebleu.corpus_bleu(predictions, [references]).score,
        "chrf": sacrebleu.corpus_chrf(predictions, [references]).score,
        "ter": sacrebleu.corpus_ter(predictions, [references]).score,
    }
    assert found == expected
    assert 50 < expected["bleu"] < 95
    assert 5 < expected["ter"] < 50
    for name, value in expected.items():
        compute = metrics.load(name).compute
        assert compute(predictions=predictions, references=references) == {name: value}
        best = pytest.approx(0 if name == "ter" else 100)
        assert compute(predictions=references, references=references)[name] == best


def test_the_whole_corpus_counts_not_the_mean_of_its_rows():
    predictions, references = ["a b c d", "x"], ["a b c d", "a b c d e f g h"]
    rows = [sacrebleu.corpus_bleu([p], [[r]]).score for p, r in zip(predictions, references, strict=True)]
    assert abs(score(predictions, references)[0]["bleu"] - sum(rows) / 2) > 10


@pytest.mark.parametrize("code", ["zh", "zh_CN", "zho_Hans", "zho_Hant", "yue_Hant"])
def test_bleu_of_chinese_is_on_characters_and_not_that_of_13a(code):
    predictions = ["今天天气不好。", *CHINESE[1:]]
    found, details = score(predictions, CHINESE, target_lang=code)
    assert found["bleu"] == sacrebleu.corpus_bleu(predictions, [CHINESE], tokenize="zh").score
    assert abs(found["bleu"] - sacrebleu.corpus_bleu(predictions, [CHINESE]).score) > 10
    assert "tok:zh" in details["bleu_signature"]
    # TER would count a whole sentence as one word.
    asian = sacrebleu.metrics.TER(asian_support=True, normalized=True)
    assert found["ter"] == asian.corpus_score(predictions, [CHINESE]).score < 20
    assert sacrebleu.corpus_ter(predictions, [CHINESE]).score >= 25
    asked, details = score(predictions, CHINESE, target_lang=code, bleu_tokenize="13a")
    assert asked["bleu"] == sacrebleu.corpus_bleu(predictions, [CHINESE]).score
    assert "tok:13a" in details["bleu_signature"]


@pytest.mark.parametrize(
    ("code", "own"),
    [("ja_XX", "ja-mecab"), ("jpn_Jpan", "ja-mecab"), ("ko", "ko-mecab"), ("kor_Hang", "ko-mecab")],
)
def test_japanese_and_korean_are_divided_by_mecab_if_it_is_installed_else_into_characters(
    code, own, monkeypatch, caplog
):
    monkeypatch.setattr(translation, "find_spec", lambda name: None)
    assert translation.tokenizer_for(code) == translation.tokenizer_for(code) == "char"
    assert len(caplog.records) == 1
    assert f"BLEU of {code} is computed on characters" in caplog.text
    assert f"pip install 'sacrebleu[{own[:2]}]'" in caplog.text
    translation.tokenizer_for.cache_clear()
    caplog.clear()
    monkeypatch.setattr(translation, "find_spec", lambda name: name)
    assert translation.tokenizer_for(code) == own
    assert not caplog.records


@pytest.mark.parametrize("code", ["th", "tha_Thai", "lo", "my_MM", "khm_Khmr", "bo"])
def test_other_languages_without_spaces_are_divided_into_characters_and_it_is_said(code, caplog):
    assert translation.tokenizer_for(code) == "char"
    assert f"BLEU of {code} is computed on characters" in caplog.text
    assert score(["abcdef"], ["abcdeg"], ["bleu"], target_lang=code)[0]["bleu"] > 0


@pytest.mark.parametrize("code", [None, "de", "en_XX", "rus_Cyrl", "xx"])
def test_languages_with_spaces_have_the_usual_words(code, caplog):
    assert translation.tokenizer_for(code) == "13a"
    assert not caplog.records


def test_the_modules_of_mecab_are_those_that_sacrebleu_imports():
    """What it does not find it replaces by None."""
    from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab

    for name, module in (("ja-mecab", tokenizer_ja_mecab), ("ko-mecab", tokenizer_ko_mecab)):
        source = Path(module.__file__).read_text()
        assert all(f"import {each}" in source for each in translation.MODULES[name][0])


@pytest.mark.parametrize("name", [*translation.TOKENIZERS, *translation.DOWNLOADED])
def test_every_tokenization_of_sacrebleu_is_taken_or_refused_with_the_reason(name):
    told = translation.problems(None, name)
    if name in translation.DOWNLOADED:
        assert f"--bleu_tokenize {name}: sacrebleu downloads a model for it" in told[0]
    elif name.endswith("mecab") and told:
        assert told == [
            f"--bleu_tokenize {name} needs further packages: pip install 'sacrebleu[{name[:2]}]'."
        ]
    else:
        assert told == []
        assert f"|tok:{name}|" in score(["a b"], ["a b"], ["bleu"], bleu_tokenize=name)[1]["bleu_signature"]
    from sacrebleu.metrics import bleu

    known = {*translation.TOKENIZERS, *translation.DOWNLOADED}
    assert set(bleu._TOKENIZERS) <= known


def test_values_of_flags_that_are_not_there_are_told():
    assert translation.problems("bleu, chrf", None) == translation.problems(None, None) == []
    (problem,) = translation.problems("rouge,chrf", None)
    assert problem == "--metric_name rouge: there is no such metric; there are: bleu, chrf, ter."
    (problem,) = translation.problems(None, "14a")
    assert problem.startswith("--bleu_tokenize 14a: there is no such tokenization; there are: 13a, intl")
    (problem,) = translation.problems("chrf", "intl")
    assert problem == "--bleu_tokenize intl is for bleu, which --metric_name chrf leaves out."


def test_the_metrics_are_those_asked_for_and_the_one_that_chooses_the_best():
    def names(asked, best="loss"):
        return translation.names_for(asked, SimpleNamespace(metric_for_best_model=best))

    assert names(None) == ["bleu", "chrf"]
    assert names("ter, bleu") == ["ter", "bleu"]
    assert names(None, "eval_ter") == ["bleu", "chrf", "ter"]
    assert names("bleu", "gen_len") == names("bleu", "bleu") == ["bleu"]


def test_signatures_say_how_the_figures_were_made():
    _, details = score(*corpus())
    version = f"version:{sacrebleu.__version__}"
    assert details == {
        "bleu_signature": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}",
        "chrf_signature": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}",
        "ter_signature": f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{version}",
    }
    assert "asian:yes" in score(["好"], ["好"], target_lang="ja")[1]["ter_signature"]


def test_several_directions_are_scored_apart_each_in_its_own_words():
    predictions, references = corpus(20)
    chinese = ["今天天气不好。", *CHINESE[1:]]
    codes = ["de"] * 20 + ["zh"] * 4
    # In turn, so that places matter
    order = random.Random(0).sample(range(24), 24)

    def mixed(values):
        return [values[place] for place in order]

    rows = datasets.Dataset.from_dict({"s": ["x"] * 24, "t": mixed(references + CHINESE), "to": mixed(codes)})
    columns = {"source": "s", "target": "t", "target language": "to"}
    arguments = (mixed(predictions + chinese), rows, columns, ["bleu", "chrf"], given(source_lang="en"))
    german = [
        (p, r) for p, r, code in zip(arguments[0], rows["t"][:], rows["to"][:], strict=True) if code == "de"
    ]
    bleu = [
        sacrebleu.corpus_bleu([p for p, _ in german], [[r for _, r in german]]).score,
        sacrebleu.corpus_bleu(chinese, [CHINESE], tokenize="zh").score,
    ]
    found, details = translation.score(*arguments), translation.details(*arguments)
    assert found["bleu"] == pytest.approx(sum(bleu) / 2)
    assert list(details) == ["by_direction"]
    by_direction = details["by_direction"]
    assert {name: (about["rows"], about["bleu"]) for name, about in by_direction.items()} == {
        "en-de": (20, pytest.approx(bleu[0])),
        "en-zh": (4, pytest.approx(bleu[1])),
    }
    assert "tok:13a" in by_direction["en-de"]["bleu_signature"]
    assert "tok:zh" in by_direction["en-zh"]["bleu_signature"]


def test_the_table_has_a_row_for_each_prediction_with_the_chrf_of_its_sentence():
    sources, references = ["a\tb", "c\nd", 'e "f"'], ["The cat sat.", "A dog ran.", "Yes."]
    predictions = ["The cat sits.", "", "Yes."]
    rows = datasets.Dataset.from_dict({"s": sources, "t": references, data.NUMBER: [1, 3, 4]})
    heading, *lines = translation.table(predictions, rows, {"source": "s", "target": "t"})
    assert heading == ["row", "source", "prediction", "reference", "chrf"]
    assert [line[:4] for line in lines] == [
        list(line) for line in zip([1, 3, 4], sources, predictions, references, strict=True)
    ]
    expected = [sacrebleu.sentence_chrf(p, [r]).score for p, r in zip(predictions, references, strict=True)]
    assert [line[4] for line in lines] == pytest.approx(expected, abs=0.005)
    assert lines[1][4] == 0 < lines[0][4] < lines[2][4] == 100
    bare = rows.remove_columns("t")
    assert translation.table(predictions, bare, {"source": "s", "target": "t"})[:2] == [
        ["row", "source", "prediction"],
        [1, "a\tb", "The cat sits."],
    ]
    assert translation.details(predictions, bare, {"source": "s", "target": "t"}, ["bleu"], given()) == {}


def test_no_rows_and_rows_that_do_not_match_are_errors():
    for name in translation.NAMES:
        with pytest.raises(ValueError, match="no rows"):
            metrics.load(name).compute(predictions=[], references=[])
        with pytest.raises(ValueError, match="Mismatch"):
            metrics.load(name).compute(predictions=["a"], references=["a", "b"])


def test_the_flags_need_no_heavy_package():
    heavy = {"evaluate", "datasets", "sacrebleu", "pyarrow", "transformers"}
    code = f"import sys; from triptych.metrics import translation; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
