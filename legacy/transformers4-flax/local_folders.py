"""Opens folders of this machine alone, and refuses those that transformers 4.57.6 would run foreign code of.

Imported first: it keeps the library from asking the hub. The same file in each of the three projects.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"


def keys(value: Any) -> Iterator[str]:
    """All keys of a JSON value, at any depth."""
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(inner)


def problems_of(folder: str | Path, weights: tuple[str, ...]) -> list[str]:
    """What keeps a folder from being opened: one sentence each.

    Args:
        weights: names of files with weights, of which the folder may have one; another kind is refused.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return [f"{folder} is no folder. Names of the hub are not taken: download it, look at it, pass the folder."]
    problems = [] if (folder / "config.json").is_file() else [f"{folder} has no config.json."]
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            problems.append(f"{path} is no JSON: {error}.")
            continue
        if path.name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
            continue  # whose keys are words
        for key in sorted(set(keys(content))):
            # CVE-2026-4372: a repository named there is loaded and run, even without trust_remote_code.
            if key.startswith("_attn_implementation") or key in ("auto_map", "custom_pipelines"):
                problems.append(f"{path} has {key}, which may name foreign code to run: remove it, if you trust the rest.")
        templates = content.get("chat_template") if isinstance(content, dict) else None
        if templates is not None and not isinstance(templates, str):  # CVE-2026-9856: names that become paths
            problems.append(f"{path} has chat templates by name, which are written wherever their names say.")
    if (folder / "adapter_config.json").exists() or (folder / "additional_chat_templates").exists():
        problems.append(f"{folder} holds an adapter or chat templates, which are not opened here.")
    others = {"model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"} - {*weights}
    has = [name for name in others if list(folder.glob(f"{name}*"))]
    if has and not any(list(folder.glob(f"{name}*")) for name in weights):
        problems.append(f"{folder} has {', '.join(sorted(has))}, where {' or '.join(weights)} is read.")
    return problems


def has_weights(folder: str | Path, weights: tuple[str, ...]) -> bool:
    """Whether a folder has any; without, a model begins with random ones."""
    return any(Path(folder, file).is_file() for name in weights for file in (name, f"{name}.index.json"))


def with_labels(auto_config, args: argparse.Namespace, *parts: list[dict[str, Any]]):
    """The configuration of a classifier: with the labels that a trained one knows, else with those of the rows.

    Raises:
        SystemExit: a row has another label, or none.
    """
    config = auto_config.from_pretrained(args.model_name_or_path)
    labels = {row.get(args.label_column_name) for part in parts for row in part}
    known = set(config.label2id)
    if known == {"LABEL_0", "LABEL_1"} and not labels <= known and all(isinstance(one, str) for one in labels):
        names = sorted(labels)
        config = auto_config.from_pretrained(
            args.model_name_or_path, id2label=dict(enumerate(names)), label2id={one: n for n, one in enumerate(names)}
        )
    if strange := sorted(map(repr, labels - set(config.label2id))):
        print(f"--label_column_name {args.label_column_name}: {strange[:3]} are no labels of the model.", file=sys.stderr)
        sys.exit(2)
    return config


def save_results(folder: Path, results: dict[str, float], losses: list[float]) -> None:
    text = json.dumps(results | ({"losses": losses} if losses else {}), indent=1)
    (folder / "eval_results.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def rows(path: str | None, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of a file with a JSON object a line.

    Raises:
        ValueError: what is wrong with it, and where.
    """
    if path is None:
        return []
    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}.") from error
    for number, line in enumerate(filter(None, lines), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(column), str) for column in columns):
            raise ValueError(f"{path}, line {number}: {' and '.join(columns)} have to be there, as text.")
        found.append(row)
    if not found:
        raise ValueError(f"{path} is empty.")
    return found


def parse(
    parser: argparse.ArgumentParser, weights: tuple[str, ...], columns: tuple[str, ...]
) -> tuple[argparse.Namespace, list[dict[str, Any]], list[dict[str, Any]]]:
    """The flags that all scripts have with the parser's own, and the rows for training and for evaluation; all
    that is wrong ends the program with 2 before anything is written."""
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="a folder: config.json and a tokenizer; without weights the "
        "model begins with random ones")  # fmt: skip
    add("--train_file", help="JSON lines, a row each")
    add("--validation_file", help="likewise, to be scored in the end")
    add("--output_dir", type=Path, required=True, help="is not there yet, or empty")
    add("--per_device_train_batch_size", type=int, default=16, help="(%(default)s)")
    add("--per_device_eval_batch_size", type=int, default=40, help="(%(default)s)")
    add("--max_steps", type=int, default=150, help="of training (%(default)s)")
    add("--learning_rate", type=float, default=5e-3, help="at the start; falls to nothing (%(default)s)")
    add("--seed", type=int, default=0, help="of all that is random (%(default)s)")
    args = parser.parse_args()
    problems = problems_of(args.model_name_or_path, weights)
    parts: list[list[dict[str, Any]]] = []
    for path in (args.train_file, args.validation_file):
        try:
            parts.append(rows(path, columns))
        except ValueError as error:
            problems.append(str(error))
    if args.train_file is None and args.validation_file is None:
        problems.append("There is nothing to do without --train_file or --validation_file.")
    for name, value in vars(args).items():
        if isinstance(value, int) and name != "seed" and value < 1:
            problems.append(f"--{name} {value} is less than 1.")
    if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
        problems.append(f"--output_dir {args.output_dir} is there already, and is no empty folder.")
    if problems:
        parser.error("\n".join(["these do not work:", *problems]))
    return args, parts[0], parts[1]
