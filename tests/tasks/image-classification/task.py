"""What the suites know of image classification, in Python."""

import importlib.util
import json
from pathlib import Path

VIT = dict(image_size=8, patch_size=2, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
VIT |= dict(intermediate_size=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """digits: a ViT for pictures of 8 x 8 pixels, with the ten digits in an order of its own; digits-bare:
    that without its head. See tests/fixtures/tiny_checkpoints.py."""
    import transformers

    from triptych.images.processors import Processor

    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    processor = Processor(settings)
    names = [str(digit) for digit in (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)]
    head = dict(id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    model = save(transformers.ViTConfig(**VIT, **head), processor, folder / "digits", "ImageClassification")
    model.vit.save_pretrained(folder / "digits-bare")
    processor.save_pretrained(folder / "digits-bare")


def to_predict(rows: list[dict | None]) -> tuple[str, list[str]]:
    """A table of nothing but paths."""
    return "rows.csv", ["image", *('""' if row is None else json.dumps(row["image"]) for row in rows)]


def recomputed(predictions: list[list[str]], rows: list[dict], output: Path) -> dict[str, float]:
    """The metrics of predictions from counts alone, as text classification's are."""
    path = Path(__file__).parents[1] / "text-classification/task.py"
    specification = importlib.util.spec_from_file_location("counting", path)
    counting = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(counting)
    labels = [(label, share) for label, share, _ in predictions]
    assert [name for *_, name in predictions] == [row["image"] for row in rows]
    return counting.recomputed(labels, [{"topic": row["digit"]} for row in rows], output)


def require_learned(results: dict[str, float], answers: list[list[str]]) -> None:
    """That a model which was trained for the tests answers as one that has learnt something."""
    assert results["predict_accuracy"] > 0.5, f"hardly anything is right: {answers}"
