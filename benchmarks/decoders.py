"""Decoders: true shapes beside the stock Trainer and the machine's limit; packed rows beside padded."""

import json
from typing import Any

from running import BUILD, HERE, ROOT, Figures, Run, python, steps_of

FORMS = {
    "PyTorch, Trainer": "pytorch/language-modeling/run_clm.py",
    "PyTorch, Accelerate": "pytorch/language-modeling/run_clm_no_trainer.py",
    "TensorFlow": "tensorflow/language-modeling/run_clm.py",
    "JAX": "flax/language-modeling/run_clm.py",
}
# SmolLM2-135M and Qwen3-0.6B as their cards on the hub have them; the last is for packing
SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49_152,
        "max_position_embeddings": 8192,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
    },
    "small-llama": {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 8000,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
}
STEPS, BATCH, DOCUMENTS = 6, 2, 10
BLOCK = {"SmolLM2-135M": 256, "Qwen3-0.6B": 128}
# A row of a batch is one text, padded to the longest; or as many whole texts as 512 tokens hold. A step of
# eight texts has 640 useful tokens on average.
ROWS, EVAL_ROWS = 480, 200
PACKING = {
    "padded": ("--packing", "none", "--per_device_train_batch_size", 8, "--per_device_eval_batch_size", 32),
    "padded by length": (
        *("--packing", "none", "--group_by_length"),
        *("--per_device_train_batch_size", 8, "--per_device_eval_batch_size", 32),
    ),
    "packed": (
        *("--packing", "documents", "--block_size", 512),
        *("--per_device_train_batch_size", 1, "--per_device_eval_batch_size", 4),
    ),
}
MAKE_MODEL = """
import json, sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
config = transformers.AutoConfig.for_model(**json.loads(sys.argv[3]))
torch.manual_seed(1)
transformers.AutoModelForCausalLM.from_config(config).save_pretrained(sys.argv[2])
tokenizer.save_pretrained(sys.argv[2])
"""


def prepare(shape: str) -> None:
    """A model with random weights, and the source files of Python's standard library."""
    if not (BUILD / "library/train.jsonl").exists():
        python("-m", "triptych.samples", "library", BUILD / "library")
    if not (BUILD / shape / "model.safetensors").exists():
        python("-c", MAKE_MODEL, BUILD / "tokenizer", BUILD / shape, json.dumps(SHAPES[shape]))


def operations(shape: str, length: int) -> float:
    """Floating-point operations of training on a token, by the sizes of the matrices: as bench.operations,
    where half of the places before the last are attended to."""
    sizes = SHAPES[shape]
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"] * sizes["head_dim"]
    shared = sizes["num_key_value_heads"] * sizes["head_dim"]
    layer = 4 * width * (heads + shared) + 6 * width * sizes["intermediate_size"] + 2 * heads * length
    return 3 * (sizes["num_hidden_layers"] * layer + 2 * width * sizes["vocab_size"])


def true_shape(core: int, who: str, shape: str) -> Figures:
    """Some steps of full blocks: tokens a second of the median step, the memory, and the losses.

    Args:
        who: "stock", the Trainer with texts joined and cut as its course has it; or a form of ours.
    """
    prepare(shape)
    data, length = BUILD / "library", BLOCK[shape]
    settings = {"learning_rate": 1e-4, "max_steps": STEPS, "logging_steps": 1, "save_strategy": "no"}
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    words += ["--per_device_train_batch_size", BATCH, "--output_dir", "out"]
    if who == "stock":
        words += ["--model", BUILD / shape, "--train", data / "train.jsonl", "--block_size", length]
        command = (HERE / "stock_language_model.py", *words)
        run = Run(core, "pytorch", *command, name=f"stock {shape}")
    else:
        words += ["--model_name_or_path", BUILD / shape, "--train_file", data / "train.jsonl", "--do_train"]
        words += ["--block_size", length, "--max_train_samples", DOCUMENTS]
        framework = FORMS[who].partition("/")[0]
        command = (HERE / "watch.py", ROOT / "examples" / FORMS[who], *words)
        run = Run(core, framework, *command, name=f"{who} {shape}")
    return steps_of(run, BATCH * length)


def packed(core: int, form: str, way: str) -> Figures:
    """The second of two epochs of docstrings, when all is compiled, and an evaluation of others."""
    prepare("small-llama")
    data, framework = BUILD / "data", FORMS[form].partition("/")[0]
    words = ["--model_name_or_path", BUILD / "small-llama", "--train_file", data / "train.jsonl"]
    words += ["--validation_file", data / "validation.jsonl", "--max_train_samples", ROWS]
    words += ["--max_eval_samples", EVAL_ROWS, "--num_train_epochs", 2, "--do_train", "--do_eval"]
    words += ["--save_strategy", "no", "--output_dir", "out", *PACKING[way]]
    command = (HERE / "watch.py", ROOT / "examples" / FORMS[form], *words)
    run = Run(core, framework, *command, name=f"packing {form} {way}")
    steps = run.at("step")
    evaluated = json.loads((run.folder / "out/eval_results.json").read_text())
    return {
        "epoch": steps[-1] - steps[len(steps) // 2 - 1],
        "steps": len(steps) // 2,
        "tokens": sum(run.values("step", "tokens")) / 2,
        "evaluation": evaluated["eval_runtime"],
        "loss": evaluated["eval_loss"],
        "memory": run.memory,
    }
