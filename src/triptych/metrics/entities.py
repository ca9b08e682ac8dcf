"""Scores of entities, which are found again by their words and their type, and of other tags of words."""

from collections.abc import Sequence

import datasets
import evaluate

from triptych.data.schemes import extract
from triptych.metrics.tags import counts, rates

__all__ = ["Entities", "extract"]


class Entities(evaluate.Metric):
    """Precision, recall and F1 of entities: one is right if its first word, its last and its type are.

    `compute(predictions=, references=, scheme=)` takes a list of tags for each row. `precision`, `recall` and
    `f1` are over all entities (micro), `f1_macro` is a mean over the types that are predicted or there, and
    `accuracy` the share of words whose tag is right, O among them. With the scheme None the tags mark no
    entities: there are `accuracy`, and `f1_macro`, the mean over the tags. What is divided by nothing is 0.

    As conlleval and seqeval 1.2.2 do by default, it reads what a scheme does not allow; see
    `schemes.extract`. It differs from seqeval in that the scheme is given and never guessed: seqeval's
    strict mode takes IOB1 for IOB2 and drops the entities that begin with I-, and its default mode knows no
    U- and L-, so that under BILOU neighbours of one type are one entity. Under the scheme "none" whole tags
    are types; seqeval takes off their first letter. All data stays in memory, so that any number of processes
    may compute at the same time.

    Raises (in `compute`):
        ValueError: a row has not as many predictions as references.
    """

    def __init__(self, **settings):
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Tjong Kim Sang and De Meulder (2003): Introduction to the CoNLL-2003 Shared Task",
            inputs_description=self.__class__.__doc__,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]],
        scheme: str | None = None,
    ) -> dict[str, float]:
        words = [
            predicted == wanted
            for row in zip(predictions, references, strict=True)
            for predicted, wanted in zip(*row, strict=True)
        ]
        found = counts(predictions, references, scheme).values()
        f1_by_label = [rates(*three)["f1"] for three in found]
        scores = {
            "f1_macro": sum(f1_by_label) / max(1, len(f1_by_label)),
            "accuracy": sum(words) / max(1, len(words)),
        }
        if scheme is None:
            return scores
        return {**rates(*(sum(three[place] for three in found) for place in range(3))), **scores}
