"""Metrics of labels and of values, by scikit-learn and SciPy."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
from scipy import stats
from sklearn import metrics


class _Metric(evaluate.Metric):
    """All data stays in memory, so that any number of processes may compute at the same time."""

    kind = "int64"

    def __init__(self, config_name: str | None = None, **settings):
        super().__init__(config_name=config_name, **{"keep_in_memory": True, **settings})

    def _info(self) -> evaluate.MetricInfo:
        one = datasets.Value(self.kind)
        kinds = [one, datasets.Sequence(one)] if self.kind == "int64" else [one]
        return evaluate.MetricInfo(
            description=self.__class__.__doc__,
            citation="Pedregosa et al. (2011): Scikit-learn: Machine Learning in Python",
            inputs_description="Labels as numbers, or for each row 0 and 1 by label; or values.",
            features=[datasets.Features({"predictions": kind, "references": kind}) for kind in kinds],
        )


class Accuracy(_Metric):
    """The share of rows whose label is right; of several labels all have to be."""

    def _compute(self, *, predictions, references):
        return {"accuracy": float(metrics.accuracy_score(references, predictions))}


class F1(_Metric):
    """The harmonic mean of precision and recall: of label 1 where there are no others than 0 and 1, else as
    `config_name` says: "macro", a mean over the labels, "weighted" by their rows, or "micro", over all
    decisions. By default "macro", and "micro" where a row may have several labels. A label that is neither
    predicted nor there counts 0."""

    def _compute(self, *, predictions, references):
        one_label = np.ndim(references) == 1
        average = self.config_name if self.config_name != "default" else "macro" if one_label else "micro"
        if self.config_name == "default" and one_label and {*predictions, *references} <= {0, 1}:
            average = "binary"
        value = metrics.f1_score(references, predictions, average=average, zero_division=0)
        name = "f1" if self.config_name == "default" else f"f1_{self.config_name}"
        return {name: float(value)}


class MatthewsCorrelation(_Metric):
    """Matthews' correlation of labels, from -1 to 1; 0 where one of both never changes."""

    def _compute(self, *, predictions, references):
        return {"matthews_correlation": float(metrics.matthews_corrcoef(references, predictions))}


class Pearson(_Metric):
    """Pearson's correlation of values, from -1 to 1; 0 where one of both never changes."""

    kind = "float64"

    def _compute(self, *, predictions, references):
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"pearson": 0.0}
        return {"pearson": float(stats.pearsonr(predictions, references).statistic)}


class Spearman(_Metric):
    """Pearson's correlation of ranks, likewise."""

    kind = "float64"

    def _compute(self, *, predictions, references):
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"spearman": 0.0}
        return {"spearman": float(stats.spearmanr(predictions, references).statistic)}


class CombinedScore:
    """The mean of several scores of the same rows, as GLUE ranks its tasks that have two."""

    def __init__(self, parts: Sequence[evaluate.Metric]):
        self.parts = parts

    def compute(self, **rows):
        scores = [score for part in self.parts for score in part.compute(**rows).values()]
        return {"combined_score": float(np.mean(scores))}


class MeanSquaredError(_Metric):
    """The mean of the squared differences of values."""

    kind = "float64"

    def _compute(self, *, predictions, references):
        return {"mean_squared_error": float(metrics.mean_squared_error(references, predictions))}
