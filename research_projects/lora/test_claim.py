"""Runs the scripts and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken. What today's scripts are to read is left in for_today/.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import docstrings
import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
SCRIPTS = {"pytorch": "run_lora.py", "tensorflow": "run_lora_tensorflow.py", "flax": "run_lora_flax.py"}
SEEDS = (0, 1, 2)
ABOVE_HEAD, BELOW_FULL = 0.04, 0.06  # least and most, in each seed
SHARE_TRAINED, MERGED = 0.02, 5e-5
LENGTH = 24
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TINY |= {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 64, "type_vocab_size": 2}
TINY |= {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0}


def make_tiny(folder: Path) -> None:
    """A BERT of random weights with MiniLM's tokenizer."""
    folder.mkdir()
    for file in docstrings.FILES:
        if (docstrings.pretrained() / file).is_file():
            shutil.copyfile(docstrings.pretrained() / file, folder / file)
    (folder / "config.json").write_text(json.dumps(TINY))
    width, wide, generator = TINY["hidden_size"], TINY["intermediate_size"], np.random.default_rng(0)
    shapes = {f"embeddings.{name}_embeddings.weight": (rows, width) for name, rows in
              (("word", TINY["vocab_size"]), ("position", 64), ("token_type", 2))}  # fmt: skip
    layers = {"pooler.dense": (width, width)}
    norms = ["embeddings.LayerNorm"]
    for number in range(TINY["num_hidden_layers"]):
        block = f"encoder.layer.{number}"
        layers |= {f"{block}.{name}": (width, width) for name in docstrings.LINEAR[:4]}
        layers |= {f"{block}.intermediate.dense": (wide, width), f"{block}.output.dense": (width, wide)}
        norms += [f"{block}.attention.output.LayerNorm", f"{block}.output.LayerNorm"]
    tables = {name: generator.normal(0, 0.3, shape) for name, shape in shapes.items()}
    for name, shape in layers.items():
        tables |= {
            f"{name}.weight": generator.normal(0, 0.3, shape),
            f"{name}.bias": generator.normal(0, 0.1, shape[0]),
        }
    for name in norms:
        tables |= {
            f"{name}.weight": generator.normal(1, 0.1, width),
            f"{name}.bias": generator.normal(0, 0.1, width),
        }
    save_file(
        {name: array.astype(np.float32) for name, array in tables.items()}, folder / "model.safetensors"
    )


def run(script: str, output: Path, *words: object) -> dict:
    command = [sys.executable, HERE / script, "--output_dir", output, "--max_seq_length", LENGTH, *words]
    if subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{script} fails.")
    return json.loads((output / "results.json").read_text())


def main() -> None:
    problems, found = [], {}
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        make_tiny(scratch / "tiny")
        words = ["--model_name_or_path", scratch / "tiny", "--max_steps", 30, "--learning_rate", 1e-2]
        words += ["--train_rows", 3]  # few enough to be learnt by heart
        curves = {}
        for method in ("lora", "full"):
            for name, script in SCRIPTS.items():
                results = run(script, scratch / f"{method}-{name}", *words, "--method", method)
                curves[method, name] = np.array(results["losses"])
                if results["difference_of_merged"] > MERGED:
                    problems.append(f"{name}: merged, logits differ by {results['difference_of_merged']}")
            first = curves[method, "pytorch"]
            if first[-5:].mean() > first[:5].mean() - 0.1:
                problems.append(f"{method}: the tiny model learns nothing: {first}")
        apart = max(
            float(np.abs(curve - curves[method, "pytorch"]).max()) for (method, _), curve in curves.items()
        )
        if apart > 1e-4:
            problems.append(f"the losses of the frameworks differ by {apart}, not by 1e-4 at most")

        for seed in SEEDS:
            for method in docstrings.RATES:
                output = scratch / f"{method}-{seed}"
                found[seed, method] = run(SCRIPTS["pytorch"], output, "--seed", seed, "--method", method)
        model = scratch / f"lora-{SEEDS[0]}"
        left = HERE / "for_today" / "lora"
        left.mkdir(parents=True)
        shutil.copyfile(model / "validation.jsonl", left / "validation.jsonl")
        shutil.copytree(
            model, left / "model", ignore=shutil.ignore_patterns("adapter.safetensors", "*.jsonl")
        )
    of_lora = found[SEEDS[0], "lora"]
    case = {
        "task": "text-classification",
        "flags": [
            "--text_column_names",
            "text",
            "--label_column_name",
            "label",
            "--max_seq_length",
            str(LENGTH),
        ],
        "results": {"eval_loss": of_lora["loss"], "eval_accuracy": of_lora["accuracy"]},
    }
    (left / "case.json").write_text(json.dumps(case, indent=1) + "\n")

    for seed in SEEDS:
        lora, full, head = (found[seed, method]["accuracy"] for method in ("lora", "full", "head"))
        if lora - head < ABOVE_HEAD or full - lora > BELOW_FULL:
            problems.append(f"seed {seed}: LoRA {lora:.1%}, all {full:.1%}, the head alone {head:.1%}")
        if found[seed, "lora"]["difference_of_merged"] > MERGED:
            problems.append(
                f"seed {seed}: merged, logits differ by {found[seed, 'lora']['difference_of_merged']}"
            )
    share = of_lora["trained"] / of_lora["parameters"]
    if share > SHARE_TRAINED:
        problems.append(f"{share:.1%} of the parameters are trained")
    accuracies = {method: [found[seed, method]["accuracy"] for seed in SEEDS] for method in docstrings.RATES}
    seconds = {
        method: round(sum(found[seed, method]["cpu_seconds"] for seed in SEEDS), 1)
        for method in docstrings.RATES
    }
    if problems:
        print(json.dumps({"accuracies": accuracies, "seconds": seconds, "apart": apart}), file=sys.stderr)
        sys.exit("\n".join(["The claim does not hold:", *problems]))

    lora, full, head = (
        ", ".join(f"{one:.1%}" for one in accuracies[method]) for method in ("lora", "full", "head")
    )
    summary = (
        f"three seeds: {lora} of the texts right with {share:.1%} of the parameters trained, {full} with all, {head} with "
        f"the head alone; the losses of PyTorch, TensorFlow and JAX within {apart:.0e}"
    )
    same = {name: of_lora[name] for name in ("rows_of_validation", "parameters", "trained")}
    merged = max(found[seed, "lora"]["difference_of_merged"] for seed in SEEDS)
    machine = {
        "accuracies": accuracies,
        "cpu_seconds": seconds,
        "losses_apart": apart,
        "difference_of_merged": merged,
    }
    command = ["python", SCRIPTS["pytorch"], "--max_seq_length", str(LENGTH), "--output_dir", "out"]
    print(json.dumps({"command": command, "summary": summary, "same": same, "of_machine": machine}))


if __name__ == "__main__":
    main()
