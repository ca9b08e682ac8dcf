"""BLEU, chrF and TER of a corpus by sacrebleu, which needs no network for them."""

from typing import Any, ClassVar

import datasets
import evaluate
from sacrebleu.metrics import BLEU, CHRF, TER


def measure(name: str, tokenize: str = "13a", asian: bool = False) -> Any:
    """The measure of sacrebleu, of one reference a sentence: bleu, chrf or ter.

    Args:
        tokenize: for BLEU, see sacrebleu.
        asian: for TER: a Chinese or Japanese character is a word, for which sacrebleu has to normalize too.
    """
    if name == "bleu":
        return BLEU(tokenize=tokenize)
    return CHRF() if name == "chrf" else TER(asian_support=asian, normalized=asian)


def signature(name: str, **settings: Any) -> str:
    """How sacrebleu calls a measure with all its settings and its own version."""
    made = measure(name, **settings)
    made.corpus_score(["a"], [["a"]])  # from which it knows how many references there are
    return str(made.get_signature())


class _Metric(evaluate.Metric):
    """`compute(predictions=, references=)` takes plain texts, one reference a row. All data stays in memory,
    so that any number of processes may compute at the same time.

    Raises (in `compute`):
        ValueError: there are no rows, or not as many predictions as references.
    """

    about: ClassVar[str]

    def __init__(self, **settings):
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation=self.about,
            inputs_description="Texts, one reference a row.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, *, predictions: list[str], references: list[str], **settings: Any) -> dict[str, float]:
        name = self.__class__.__name__.lower()
        if not predictions:
            raise ValueError(f"{name} of no rows is not defined")
        return {name: float(measure(name, **settings).corpus_score(predictions, [references]).score)}


class Bleu(_Metric):
    """The geometric mean of the precisions of 1 to 4 words over the whole corpus, times a penalty of short
    texts, from 0 to 100; `tokenize` says what a word is."""

    about = "Papineni et al. (2002): BLEU; Post (2018): A Call for Clarity in Reporting BLEU Scores"


class Chrf(_Metric):
    """The F2 measure of 1 to 6 characters over the whole corpus, from 0 to 100."""

    about = "Popovic (2015): chrF: character n-gram F-score for automatic MT evaluation"


class Ter(_Metric):
    """The edits, a moved phrase being one, for 100 words of the references: 0 is best, and it may be over
    100; with `asian` a Chinese or Japanese character is a word."""

    about = "Snover et al. (2006): A Study of Translation Edit Rate with Targeted Human Annotation"
