"""How labels are scored: which metrics are usual for each kind, and the scores of each label."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.data.label_schema import MULTI, REGRESSION, SINGLE, Labels
from triptych.errors import InputError

# What may be asked of labels of each kind, and what is if nothing else is said
OF_KIND = {
    SINGLE: (
        ("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted", "matthews_correlation"),
        ("accuracy", "f1_macro", "f1_weighted", "matthews_correlation"),
    ),
    MULTI: (("accuracy", "f1", "f1_macro", "f1_micro", "f1_weighted"), ("accuracy", "f1_macro", "f1_micro")),
    REGRESSION: (("pearson", "spearman", "mean_squared_error"),) * 2,
}

TOP = "top5_accuracy"  # see `top_accuracy`
COMBINED = "combined_score"  # a mean of the others that are asked for


def names_for(problem_type: str, asked: str | None, args: Any) -> list[str]:
    """The names of the metrics for labels of a kind: those asked for, "accuracy,f1", or the usual ones, and
    the one that the best checkpoint is chosen by.

    Args:
        args: the run's flags: do_train, eval_strategy, metric_for_best_model.

    Raises:
        InputError: for one that there is not, or not for labels of this kind.
    """
    possible, usual = OF_KIND[problem_type]
    names = [name.strip() for name in asked.split(",")] if asked else list(usual)
    single = [name for name in names if name != COMBINED]
    if wrong := [name for name in single if name not in possible]:
        kind = problem_type.replace("_", " ")
        raise InputError(f"--metric_name {', '.join(wrong)}: for a {kind} there are {', '.join(possible)}.")
    if len(single) < 2 and COMBINED in names:
        raise InputError(f"--metric_name {COMBINED}: is a mean of others; give two or more beside it.")
    best = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.do_train and args.eval_strategy != "no" and best not in ("loss", TOP, *names):
        if best not in possible:
            kind = problem_type.replace("_", " ")
            raise InputError(
                f"--metric_for_best_model {best}: for a {kind} there are loss, {', '.join(possible)}."
            )
        names.append(best)
    return [f"{COMBINED}:{'+'.join(single)}" if name == COMBINED else name for name in names]


MOST_WITHOUT_TOP = 9  # labels; with more, the first five are looked at as well


def top_accuracy(schema: Labels, answers: Sequence[Any], rows: Any) -> dict[str, float]:
    """The share of rows whose label is among the five likeliest, as `top5_accuracy`, where rows have one of
    ten labels or more; nothing for others, and without labels.

    Args:
        answers: the probability of each label, one list a row.
        rows: the raw rows.
    """
    scored = schema.scored(answers, rows)
    if schema.problem_type != SINGLE or len(schema.names) <= MOST_WITHOUT_TOP or scored is None:
        return {}
    values = rows[schema.column][:]
    found = np.array(
        [answer for answer, value in zip(answers, values, strict=True) if not schema.lacks(value)]
    )
    likeliest = np.argsort(-found, axis=1, kind="stable")[:, :5]
    return {TOP: float((likeliest == np.array(scored[1])[:, None]).any(axis=1).mean())}


def by_label(
    scored: tuple[np.ndarray, Sequence[Any]] | None, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Of each label, by its name: precision, recall, F1, number of rows; and where each row has one label,
    how many of these rows were `predicted` to have which. Nothing without
    references or names.

    Args:
        scored: predictions and references, numbers of labels (rows,), or 0 and 1 for each label (rows,
            labels); see `Labels.scored`.
    """
    if not names or scored is None:
        return {}
    predictions, references = scored
    from sklearn.metrics import precision_recall_fscore_support

    numbers, wanted = range(len(names)), np.array(references)
    scores = precision_recall_fscore_support(wanted, predictions, labels=numbers, zero_division=0)
    found: dict[str, dict[str, Any]] = {}
    for label, (name, p, r, f, n) in enumerate(zip(names, *scores, strict=True)):
        found[name] = {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        if predictions.ndim == 1:
            counts = Counter(predictions[wanted == label].tolist())
            found[name]["predicted"] = {names[number]: count for number, count in sorted(counts.items())}
    return found
