"""Metrics computed from installed code, without network."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import evaluate

# By the metric's name: the module, the class in it, and the configuration
_CLASSES = {
    "rouge": ("rouge", "Rouge", None),
    "bleu": ("bleu", "Bleu", None),
    "chrf": ("bleu", "Chrf", None),
    "ter": ("bleu", "Ter", None),
    "accuracy": ("classification", "Accuracy", None),
    "f1": ("classification", "F1", None),
    "f1_macro": ("classification", "F1", "macro"),
    "f1_micro": ("classification", "F1", "micro"),
    "f1_weighted": ("classification", "F1", "weighted"),
    "matthews_correlation": ("classification", "MatthewsCorrelation", None),
    "pearson": ("classification", "Pearson", None),
    "spearman": ("classification", "Spearman", None),
    "combined_score": ("classification", "CombinedScore", None),
    "entities": ("entities", "Entities", None),
    "squad": ("squad", "Squad", None),
    "squad_v2": ("squad", "SquadV2", None),
    "mean_squared_error": ("classification", "MeanSquaredError", None),
}


def load(name: str) -> "evaluate.Metric":
    """The metric of that name, ready for `compute(predictions=..., references=...)`.

    Args:
        name: with what it is made of, if it is so: "combined_score:accuracy+f1".

    Raises:
        ValueError: there is no metric of that name.
    """
    name, _, parts = name.partition(":")
    if name not in _CLASSES:
        raise ValueError(f"no metric {name!r}; there are: {', '.join(sorted(_CLASSES))}")
    module, cls, configuration = _CLASSES[name]
    made = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    if parts:
        return made([load(part) for part in parts.split("+")])
    return made() if configuration is None else made(configuration)
