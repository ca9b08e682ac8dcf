"""How tags of words are scored: over all rows, by label, and which are taken for which."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from triptych import metrics
from triptych.data.schemes import OUTSIDE, extract, parse
from triptych.data.tag_schema import Tags
from triptych.output.pictures import MOST_IN_PICTURE

Rows = Sequence[Sequence[str]]
Scored = tuple[Rows, Rows] | None  # predictions and references, tags of the words by row; see `Tags.scored`

OTHERS = "others"


def score(scored: Scored, schema: Tags) -> dict[str, float]:
    """Of entities precision, recall, f1, f1_macro and accuracy; of other tags accuracy and f1_macro, both by
    word. See `entities.Entities`; nothing without references."""
    if scored is None:
        return {}
    predictions, references = scored
    scheme = schema.scheme if schema.marks_entities else None
    return metrics.load("entities").compute(predictions=predictions, references=references, scheme=scheme)


def counts(predictions: Rows, references: Rows, scheme: str | None) -> dict[str, tuple[int, int, int]]:
    """For each label how many are right, predicted, and there: entities by their type, or, without a scheme,
    words by their tag."""

    def found(rows: Rows) -> set[tuple[int, int, int, str]]:
        if scheme is None:
            return {(row, word, word, tag) for row, tags in enumerate(rows) for word, tag in enumerate(tags)}
        return {(row, *entity) for row, tags in enumerate(rows) for entity in extract(tags, scheme)}

    predicted, wanted = found(predictions), found(references)
    each = [Counter(label for *_, label in some) for some in (predicted & wanted, predicted, wanted)]
    return {label: (each[0][label], each[1][label], each[2][label]) for label in sorted(each[1] | each[2])}


def rates(right: int, predicted: int, wanted: int) -> dict[str, float]:
    """Precision, recall and F1 of numbers as `counts` gives them; 0 where there is nothing to divide by."""
    return {
        "precision": right / predicted if predicted else 0.0,
        "recall": right / wanted if wanted else 0.0,
        "f1": 2 * right / (predicted + wanted) if predicted + wanted else 0.0,
    }


def by_label(scored: Scored, schema: Tags) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1, and how many there are (support), of each type of entity, or of each tag where
    they mark none. Nothing without references."""
    if scored is None:
        return {}
    found = counts(*scored, schema.scheme if schema.marks_entities else None)
    labels = [label for label in _labels(schema) if label != OUTSIDE or not schema.marks_entities]
    every = dict.fromkeys([*labels, *found])
    numbers = {label: found.get(label, (0, 0, 0)) for label in every}
    return {label: {**rates(*three), "support": three[2]} for label, three in numbers.items()}


def confusion(scored: Scored, schema: Tags, most: int = MOST_IN_PICTURE) -> dict[str, dict[str, Any]]:
    """For each label how many of its words were `predicted` to have which, for `pictures.save_confusion`: of
    entities the types and O, whatever their words' places; else the tags. Nothing without references.

    Args:
        most: labels at most: of more the least frequent are counted together, as OTHERS.
    """
    if scored is None:
        return {}
    pairs = Counter(
        (_label(wanted, schema), _label(predicted, schema))
        for rows in zip(*scored, strict=True)
        for predicted, wanted in zip(*rows, strict=True)
    )
    labels = _labels(schema)
    if len(labels) > most:
        words = Counter(dict.fromkeys(labels, 0))
        for (wanted, _), count in pairs.items():
            words[wanted] += count
        kept = {label for label, _ in words.most_common(most - 1)}
        labels = [*(label for label in labels if label in kept), OTHERS]
    found: dict[str, dict[str, Any]] = {label: {"predicted": Counter()} for label in labels}
    for (wanted, predicted), count in pairs.items():
        row, column = (label if label in found else OTHERS for label in (wanted, predicted))
        found[row]["predicted"][column] += count
    return found


def _labels(schema: Tags) -> list[str]:
    """In the order of the model's outputs."""
    return list(dict.fromkeys(_label(name, schema) for name in schema.names))


def _label(tag: str, schema: Tags) -> str:
    """A tag, or of one that marks an entity its type."""
    parsed = parse(tag, schema.scheme) if schema.marks_entities else None
    return tag if parsed is None or tag == OUTSIDE else parsed[1]
