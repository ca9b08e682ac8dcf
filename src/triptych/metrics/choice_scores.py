"""How choices are scored: the share of rows whose choice is right, of all and by how many there are."""

from typing import Any

from triptych.data.choices import Scored


def score(scored: Scored) -> dict[str, float]:
    """The accuracy; nothing without references."""
    if scored is None:
        return {}
    predictions, references, _ = scored
    return {"accuracy": float((predictions == references).mean())}


def by_number(scored: Scored) -> dict[str, dict[str, Any]]:
    """Accuracy and number of rows by how many choices a row has, where they differ; else nothing."""
    if scored is None or len({*scored[2]}) < 2:
        return {}
    predictions, references, counts = scored
    found = {}
    for count in sorted({*counts.tolist()}):
        own = counts == count
        accuracy = float((predictions[own] == references[own]).mean())
        found[str(count)] = {"accuracy": accuracy, "rows": int(own.sum())}
    return found
