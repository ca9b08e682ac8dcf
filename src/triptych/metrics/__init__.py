"""Metrics computed from installed code, without network, and the functions on plain text that they need."""

# ruff: noqa: RUF001 (the punctuation of other scripts is meant)

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from triptych.errors import InputError

if TYPE_CHECKING:
    import evaluate
    import numpy as np

# By the metric's name: the module, the class in it, and the configuration
_CLASSES = {
    "rouge": ("rouge", "Rouge", None),
    "accuracy": ("classification", "Accuracy", None),
    "f1": ("classification", "F1", None),
    "f1_macro": ("classification", "F1", "macro"),
    "f1_micro": ("classification", "F1", "micro"),
    "f1_weighted": ("classification", "F1", "weighted"),
    "matthews_correlation": ("classification", "MatthewsCorrelation", None),
    "pearson": ("classification", "Pearson", None),
    "spearman": ("classification", "Spearman", None),
    "mean_squared_error": ("classification", "MeanSquaredError", None),
}
# What may be asked of labels of each kind, and what is if nothing else is said
OF_LABELS = {
    "single_label_classification": (
        ("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "matthews_correlation"),
        ("accuracy", "f1_macro", "f1_weighted", "matthews_correlation"),
    ),
    "multi_label_classification": (
        ("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted"),
        ("accuracy", "f1_macro", "f1_micro"),
    ),
    "regression": (("pearson", "spearman", "mean_squared_error"),) * 2,
}

# Han with its iteration marks, and kana: written without spaces, so that each character counts as a word.
CJK = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
)
_WORD = re.compile(f"[{CJK}]|[^\\s{CJK}]+")

# A mark before white space may end a sentence; the stops of scripts that need no space always do. The
# look-behind and the possessive ++ keep the time linear in what a model repeats without end: "......".
_STOP = re.compile(
    r"(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’»)\]]*+(?=\s)|(?:[。！？｡।॥؟۔։።။។]|．(?!\d))+[\"'”’»」』）】》)\]]*"
)
_NEXT = re.compile(r"\s*[\"'“‘„«(\[]*(?P<word>\w*\.?)(?P<rest>[,;:.!?…]?)")
_ABBREVIATION = re.compile(
    r"mrs?|ms|messrs|dr|prof|st|sen|rep|gov|gen|col|maj|lt|sgt|capt|cmdr|adm|rev|hon|pres|supt|jr|sr|ph\.d|"
    r"inc|ltd|co|corp|bros|dept|univ|assn|vs|e\.?g|i\.?e|cf|viz|resp|incl|approx|al|etc|ca|figs?|eqs?|vols?|pp|"
    r"eds?|ave|blvd|rd|mt|ft|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|"
    r"(?:[^\W\d_]\.)*[^\W\d_]",  # initials
    re.IGNORECASE,
)
# After an abbreviation only these words begin a sentence: "in the U.S. The …" against "the U.S. Army".
_STARTER = re.compile(
    r"the|an?|s?he|it|we|they|you|i|this|that|these|those|t?here|his|her|its|their|our|my|in|on|at|but|and|so|if|when|"
    r"while|after|before|as|for|however|then|now|what|who|why|how|some|many|most|both|yet|also|meanwhile|since|"
    r"although|by|from|with|to|no|not",
    re.IGNORECASE,
)


def load(name: str) -> "evaluate.Metric":
    """The metric of that name, ready for `compute(predictions=..., references=...)`.

    Raises:
        ValueError: there is no metric of that name.
    """
    if name not in _CLASSES:
        raise ValueError(f"no metric {name!r}; there are: {', '.join(sorted(_CLASSES))}")
    module, cls, configuration = _CLASSES[name]
    made = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return made() if configuration is None else made(configuration)


def of_labels(problem_type: str, asked: str | None) -> list[str]:
    """The names of the metrics for labels of a kind: those asked for, "accuracy,f1", or the usual ones.

    Raises:
        InputError: for one that there is not, or not for labels of this kind.
    """
    possible, usual = OF_LABELS[problem_type]
    names = [name.strip() for name in asked.split(",")] if asked else list(usual)
    if wrong := [name for name in names if name not in possible]:
        kind = problem_type.replace("_", " ")
        raise InputError(f"--metric_name {', '.join(wrong)}: for a {kind} there are {', '.join(possible)}.")
    return names


def by_label(
    predictions: "np.ndarray", references: "np.ndarray", names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Of each label, by its name: precision, recall, F1, number of rows; and where each row has one label,
    how many of these rows were `predicted` to have which. Nothing where there are no names.

    Args:
        predictions, references: numbers of labels (rows,), or 0 and 1 for each label (rows, labels).
    """
    if not names:
        return {}
    from sklearn.metrics import precision_recall_fscore_support

    numbers = range(len(names))
    scores = precision_recall_fscore_support(references, predictions, labels=numbers, zero_division=0)
    found: dict[str, dict[str, Any]] = {}
    for label, (name, p, r, f, n) in enumerate(zip(names, *scores, strict=True)):
        found[name] = {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        if predictions.ndim == 1:
            counts = Counter(predictions[references == label].tolist())
            found[name]["predicted"] = {names[number]: count for number, count in sorted(counts.items())}
    return found


def lead_baseline(texts: list[str], words: int) -> list[str]:
    """The first `words` words of each text: the summary that any trained model has to beat.

    Words stand between white space, except that a Chinese or Japanese character is a word of its own.
    """
    leads = []
    for text in texts:
        end = max((match.end() for match in islice(_WORD.finditer(text), words)), default=0)
        leads.append(" ".join(text[:end].split()))
    return leads


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, found by rules, with no model and no download; a line break always ends one.

    English abbreviations, initials, decimals, quotes and ellipses do not end a sentence where they only look
    like it. A lower-case word begins one only if the whole text has no upper case.
    """
    cased = text != text.lower()
    sentences = []
    for line in text.splitlines():
        start = 0
        for stop in _STOP.finditer(line):
            if stop["mark"] is None or _ends_sentence(line, start, stop, cased):
                sentences.append(line[start : stop.end()])
                start = stop.end()
        sentences.append(line[start:])
    return [sentence.strip() for sentence in sentences if sentence.strip()]


def _ends_sentence(line: str, start: int, stop: re.Match[str], cased: bool) -> bool:
    following = _NEXT.match(line, stop.end())
    assert following is not None  # every part of the pattern may be empty
    word = following["word"]
    if (not word and following["rest"]) or (cased and word[:1].islower()):
        return False
    if stop["mark"] != ".":
        return True
    before = line[max(start, stop.start() - 20) : stop.start()]  # longer than any abbreviation
    if before.strip(" (").isdigit():
        return False  # "1. First …": a number alone is no sentence
    last = re.split(r"[\s\"'“‘„«(\[]", before)[-1]  # empty where a space precedes the stop
    if last.lower() == "no" and word[:1].isdigit():
        return False
    if last != "I" and _ABBREVIATION.fullmatch(last):
        return _STARTER.fullmatch(word) is not None
    return True
