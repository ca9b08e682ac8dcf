"""What the suites know of extractive question answering, in Python."""

import json
import re
import string
from pathlib import Path

BERT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
BERT |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=400)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """questions: a BERT that answers questions; questions-bare: that without its head. See
    tests/fixtures/tiny_checkpoints.py."""
    import transformers

    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    config = transformers.BertConfig(**BERT, **ids, vocab_size=len(tokenizer))
    model = save(config, tokenizer, folder / "questions", "QuestionAnswering")
    model.bert.save_pretrained(folder / "questions-bare")
    tokenizer.save_pretrained(folder / "questions-bare")


def words(text: str) -> list[str]:
    """What is compared of a text: words in small letters, without punctuation and articles."""
    kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return [word for word in re.findall(r"\S+", kept) if word not in ("a", "an", "the")]


def shared(found: list[str], wanted: list[str]) -> float:
    """F1 of words, each taken from the other side once."""
    rest, common = list(wanted), 0
    for word in found:
        if word in rest:
            rest.remove(word)
            common += 1
    return 2 * common / (len(found) + len(wanted)) if found or wanted else 1.0


def input_ids(row: dict, tokenizer) -> list[int]:
    """Of the question and, behind it, the text."""
    return tokenizer.encode(row["question"], row["text"]).ids


def to_predict(rows: list[dict | None]) -> tuple[str, list[str]]:
    """Name and lines of a file without answers; None is a row whose context is empty."""
    texts = [row["text"] if row else "" for row in rows]
    return "rows.CSV", ["question,context", *(f'Who?,"{text}"' for text in texts)]


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions by their definitions, the best thresholds by trying all."""
    answers = [[words(text) for text in row["answers"]["text"]] or [[]] for row in rows]
    found = [words(text) for (text,) in predictions]
    values = {
        "exact": [float(one in texts) for one, texts in zip(found, answers, strict=True)],
        "f1": [max(shared(one, text) for text in texts) for one, texts in zip(found, answers, strict=True)],
    }
    metrics: dict[str, float] = {"total": len(rows)}
    for name, scores in values.items():
        metrics[name] = 100 * sum(scores) / len(rows)
        for part, has in (("HasAns", True), ("NoAns", False)):
            own = [score for score, texts in zip(scores, answers, strict=True) if (texts != [[]]) == has]
            metrics[f"{part}_total"] = len(own)
            metrics[f"{part}_{name}"] = 100 * sum(own) / len(own)
    odds = list(json.loads((output / "predict_null_odds.json").read_text()).values())
    written = json.loads((output / "predict_nbest_predictions.json").read_text()).values()
    spans = [words(next(one["text"] for one in candidates if one["text"])) for candidates in written]
    for name, measure in (("exact", lambda a, b: float(a == b)), ("f1", shared)):
        of_thresholds = {}
        for threshold in (min(odds) - 1, *sorted(odds)):
            decided = [span if odd <= threshold else [] for span, odd in zip(spans, odds, strict=True)]
            scores = [max(measure(a, b) for b in bs) for a, bs in zip(decided, answers, strict=True)]
            of_thresholds[threshold] = round(100 * sum(scores) / len(rows), 9)
        best = max(of_thresholds.values())
        lowest = min(threshold for threshold, score in of_thresholds.items() if score == best)
        above = min((odd for odd in odds if odd > lowest), default=lowest + 2)
        between = (lowest + above) / 2 if lowest >= min(odds) else lowest
        metrics |= {f"best_{name}": best, f"best_{name}_thresh": between}
    return metrics


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_HasAns_exact"] > 40, f"hardly anything is right: {answers}"
