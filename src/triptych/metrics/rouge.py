"""ROUGE (Lin 2004, https://aclanthology.org/W04-1013) by the package rouge-score, for text in any script."""

import unicodedata
from functools import lru_cache

import datasets
import evaluate
import regex  # a requirement of transformers
from nltk.stem.porter import PorterStemmer  # a requirement of rouge-score
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from triptych.metrics.text import CJK, split_sentences

_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
_TOKEN = regex.compile(rf"[{CJK}]|[\p{{L}}\p{{N}}--[{CJK}]][\p{{L}}\p{{N}}\p{{M}}--[{CJK}]]*", regex.VERSION1)


class WordTokenizer(Tokenizer):
    """The tokens of rouge-score's own tokenizer for ASCII text; elsewhere letters of every script count too.

    rouge-score drops every letter beyond a-z, so that Russian scores 0 and "café" is "caf". Here a word is a
    run of letters, digits and marks (a whole phrase in Thai or Khmer, which have no spaces either), and a
    Chinese or Japanese character is a word of its own. Compatibility forms count as what they stand for
    (NFKC), because SentencePiece models cannot generate them.
    """

    def __init__(self, use_stemmer: bool = True):
        self._stem = lru_cache(maxsize=2**16)(PorterStemmer().stem) if use_stemmer else None

    def tokenize(self, text: str) -> list[str]:
        tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
        if self._stem is None:
            return tokens
        return [self._stem(token) if len(token) > 3 else token for token in tokens]


class Rouge(evaluate.Metric):
    """ROUGE-1, -2, -L and -Lsum: the mean over the rows of each row's F-measure, between 0 and 1.

    `compute(predictions=, references=, use_stemmer=True)` takes plain texts, one reference a row, and splits
    them into sentences for ROUGE-Lsum itself. The mean is exact; `evaluate.load("rouge")` samples it by
    bootstrap. All data stays in memory, so that any number of processes may compute at the same time.

    Raises (in `compute`):
        ValueError: there are no rows, or not as many predictions as references.
    """

    def __init__(self, **settings):
        super().__init__(**{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="Lin (2004): ROUGE: A Package for Automatic Evaluation of Summaries",
            inputs_description=self.__class__.__doc__,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, *, predictions: list[str], references: list[str], use_stemmer: bool = True
    ) -> dict[str, float]:
        if not predictions:
            raise ValueError("ROUGE of no rows is not defined")
        scorer = RougeScorer(_TYPES, tokenizer=WordTokenizer(use_stemmer))
        totals = dict.fromkeys(_TYPES, 0.0)
        for prediction, reference in zip(predictions, references, strict=True):
            scores = scorer.score(*("\n".join(split_sentences(text)) for text in (reference, prediction)))
            for name in _TYPES:
                totals[name] += scores[name].fmeasure
        return {name: float(total / len(predictions)) for name, total in totals.items()}
