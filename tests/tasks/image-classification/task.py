"""What the suites know of image classification, in Python."""

import importlib.util
import json
from pathlib import Path

VIT = dict(image_size=8, patch_size=2, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
VIT |= dict(intermediate_size=64, **NO_DROPOUT)
SWIN = dict(image_size=8, patch_size=2, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=2)
CONVNEXT = dict(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=2)
# The families beside ViT: the classes of their configurations, and what these say
FAMILIES = {
    "deit": ("DeiTConfig", VIT | dict(architectures=["DeiTForImageClassification"])),
    "dinov2": ("Dinov2Config", VIT | dict(mlp_ratio=2)),
    "swin": ("SwinConfig", SWIN | NO_DROPOUT | dict(drop_path_rate=0.0)),
    "convnext": ("ConvNextConfig", CONVNEXT),
    "convnextv2": ("ConvNextV2Config", CONVNEXT),
    "resnet": ("ResNetConfig", dict(hidden_sizes=[16, 32], depths=[1, 1], embedding_size=16)),
}


def make_checkpoints(save, tokenizer, folder: Path) -> None:
    """digits: a ViT for pictures of 8 x 8 pixels, with the ten digits in an order of its own; digits-bare:
    that without its head; digits-resnet and so on for each of FAMILIES, the batch statistics of ResNet being
    those of no batch. See tests/fixtures/tiny_checkpoints.py."""
    import torch
    import transformers

    from triptych.images.processors import Processor

    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    processor = Processor(settings)
    names = [str(digit) for digit in (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)]
    head = dict(id2label=dict(enumerate(names)), label2id={name: n for n, name in enumerate(names)})
    model = save(transformers.ViTConfig(**VIT, **head), processor, folder / "digits", "ImageClassification")
    model.vit.save_pretrained(folder / "digits-bare")
    processor.save_pretrained(folder / "digits-bare")
    for family, (configuration, sizes) in FAMILIES.items():
        config = getattr(transformers, configuration)(**sizes, **head)
        model = save(config, processor, folder / f"digits-{family}", "ImageClassification")
        for name, statistics in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistics += 0.5 * torch.rand_like(statistics)
                model.save_pretrained(folder / f"digits-{family}")


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
