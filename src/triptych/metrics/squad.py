"""Scores of answers to questions by SQuAD's rules, of its first version and its second."""

from collections.abc import Sequence

import datasets
import evaluate

from triptych.metrics.answer_scores import best_threshold, exact, f1, wanted_texts

CITATION = "Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822"


class _Answers(evaluate.Metric):
    """Takes a text and a list of answers for each row. All data stays in memory, so that any number of
    processes may compute at the same time."""

    def __init__(self, **settings):
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__,
            citation=CITATION,
            inputs_description=self.__class__.__doc__,
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
        )


class Squad(_Answers):
    """Exact match and F1 where every question has an answer.

    `compute(predictions=, references=)` takes a text and a list of answers for each row; of these the one
    that scores highest counts. `exact_match` is the share of rows whose text is an answer, `f1` the mean F1
    of words; both in percent, of texts in small letters without punctuation and articles.
    """

    def _compute(
        self, *, predictions: Sequence[str], references: Sequence[Sequence[str]]
    ) -> dict[str, float]:
        rows = list(zip(predictions, references, strict=True))
        same = [max(exact(text, one) for one in texts) for text, texts in rows]
        alike = [max(f1(text, one, both_empty=0.0) for one in texts) for text, texts in rows]
        return {"exact_match": _percent(same), "f1": _percent(alike)}


class SquadV2(_Answers):
    """Exact match and F1 where a question may have no answer: then its list is empty, and the empty text is
    right.

    `compute(predictions=, references=, spans=, null_odds=)` also takes for each row the text that would be
    answered if there had to be an answer, and the odds that there is none. Beside `exact` and `f1`, in
    percent, and `total`, the number of rows, there are those of rows with an answer (`HasAns_…`) and without
    (`NoAns_…`), where there are any; and `best_exact`, `best_f1`, the highest that a threshold on the odds
    could reach, with the threshold, `best_exact_thresh`, `best_f1_thresh`.

    It differs from SQuAD's own program in that a threshold lies between the odds of two rows, not on those of
    one, and that `best_…` is of the spans, not of texts that a threshold has emptied before.
    """

    def _compute(
        self,
        *,
        predictions: Sequence[str],
        references: Sequence[Sequence[str]],
        spans: Sequence[str],
        null_odds: Sequence[float],
    ) -> dict[str, float]:
        wanted = list(map(wanted_texts, references))
        rows = list(zip(predictions, wanted, strict=True))
        scores = {
            name: [max(measure(text, one) for one in texts) for text, texts in rows]
            for name, measure in (("exact", exact), ("f1", f1))
        }
        found: dict[str, float] = {name: _percent(values) for name, values in scores.items()}
        found["total"] = len(rows)
        for part, has_answer in (("HasAns", True), ("NoAns", False)):
            chosen = [number for number, texts in enumerate(wanted) if (texts != [""]) == has_answer]
            if chosen:
                found |= {f"{part}_{name}": _percent([scores[name][n] for n in chosen]) for name in scores}
                found[f"{part}_total"] = len(chosen)
        for name, measure in (("exact", exact), ("f1", f1)):
            highest, threshold = best_threshold(spans, references, null_odds, measure)
            found |= {f"best_{name}": 100 * highest, f"best_{name}_thresh": threshold}
        return found


def _percent(values: Sequence[float]) -> float:
    return 100 * sum(values) / len(values)
