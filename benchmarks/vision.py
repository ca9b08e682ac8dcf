"""ViT-base's true shape beside the stock Trainer and the machine's limit; whether steps wait for pictures."""

import functools
import json
import os
from typing import Any

import pictures
from running import BUILD, HERE, ROOT, Figures, Run, python, steps_of

FORMS = {
    "PyTorch, Trainer": "pytorch/image-classification/run_image_classification.py",
    "PyTorch, Accelerate": "pytorch/image-classification/run_image_classification_no_trainer.py",
    "TensorFlow": "tensorflow/image-classification/run_image_classification.py",
    "JAX": "flax/image-classification/run_image_classification.py",
}
# google/vit-base-patch16-224 as its card on the hub has it; and a model whose step takes about as long as
# the decoding of its pictures
SHAPES: dict[str, dict[str, Any]] = {
    "ViT-base": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "patch_size": 16,
    },
    "small ViT": {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "patch_size": 32,
    },
}
SIDE, LABELS, CHANNELS = 224, 1000, 3
STEPS, BATCH = 6, 4
# Of the runs that look whether steps wait: so many threads, or processes, that decode ahead
WAITING_STEPS, WAITING_BATCH, WORKERS = 20, 16, (0, 1, 2)
MAKE_MODEL = """
import json, sys, torch, transformers
sizes, labels = json.loads(sys.argv[2]), int(sys.argv[3])
names = {"id2label": {n: str(n) for n in range(labels)}, "label2id": {str(n): n for n in range(labels)}}
torch.manual_seed(1)
dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
config = transformers.ViTConfig(**sizes, **names, **dropout)
transformers.ViTForImageClassification(config).save_pretrained(sys.argv[1])
"""


@functools.cache
def prepare(shape: str) -> None:
    """A model with random weights and ViT's image processor; photographs of 500 x 375 in two classes, and
    the same in 224 x 224 without any compression."""
    photographs, bare = BUILD / "photographs", BUILD / "bare pictures"
    if not (bare / "1").exists():
        pictures.make(photographs, WAITING_STEPS * WAITING_BATCH)
        pictures.make(bare, WAITING_STEPS * WAITING_BATCH, (SIDE, SIDE), "bmp")
    folder = BUILD / shape
    if not (folder / "model.safetensors").exists():
        python("-c", MAKE_MODEL, folder, json.dumps(SHAPES[shape]), LABELS)
        processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": SIDE, "width": SIDE}}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def operations(shape: str) -> float:
    """Floating-point operations of training on a picture, by the sizes of the matrices: as
    bench.operations."""
    sizes = SHAPES[shape]
    width, patch = sizes["hidden_size"], sizes["patch_size"]
    patches = (SIDE // patch) ** 2
    places = patches + 1  # the first token
    layer = places * (8 * width**2 + 4 * width * sizes["intermediate_size"] + 4 * width * places)
    embedding = 2 * patches * CHANNELS * patch**2 * width
    return 3 * (embedding + sizes["num_hidden_layers"] * layer + 2 * width * LABELS)


def true_shape(core: int, who: str) -> Figures:
    """Some steps of ViT-base: images a second of the median step, the memory, and the losses.

    Args:
        who: "stock", the Trainer on `datasets`' imagefolder with transformers' own image processor; or a form
            of ours. All compute the same batches.
    """
    prepare("ViT-base")
    words = ["--learning_rate", 1e-4, "--max_steps", STEPS, "--logging_steps", 1, "--save_strategy", "no"]
    words += ["--per_device_train_batch_size", BATCH, "--output_dir", "out"]
    if who == "stock":
        words += ["--model", BUILD / "ViT-base", "--train", BUILD / "photographs"]
        run = Run(core, "pytorch", HERE / "stock_image_classifier.py", *words, name="stock ViT-base")
    else:
        words += ["--model_name_or_path", BUILD / "ViT-base", "--max_train_samples", STEPS * BATCH]
        words += ["--train_dir", BUILD / "photographs", "--do_train"]
        command = (HERE / "watch.py", ROOT / "examples" / FORMS[who], *words)
        run = Run(core, FORMS[who].partition("/")[0], *command, name=f"{who} ViT-base")
    return steps_of(run, BATCH)


def waiting(core: int, form: str, cores: int, workers: int | None) -> Figures:
    """Images a second of a small model that trains on photographs.

    Args:
        cores: how many the process has, from `core` on.
        workers: that decode ahead; None for pictures that need none.
    """
    prepare("small ViT")
    folder = BUILD / ("photographs" if workers is not None else "bare pictures")
    words = ["--model_name_or_path", BUILD / "small ViT", "--train_dir", folder, "--do_train"]
    words += ["--per_device_train_batch_size", WAITING_BATCH, "--num_train_epochs", 1, "--logging_steps", 1]
    words += ["--save_strategy", "no", "--output_dir", "out", "--dataloader_num_workers", workers or 0]
    command = (HERE / "watch.py", ROOT / "examples" / FORMS[form], *words)
    name = f"waiting {form} {cores} {workers}"
    pinned = {(core + number) % (os.cpu_count() or 1) for number in range(cores)}
    return steps_of(Run(pinned, FORMS[form].partition("/")[0], *command, name=name), WAITING_BATCH)
