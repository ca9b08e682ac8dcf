"""What test_claim.py of the three projects shares: a small model of each task is trained by the scripts here, read
again, and left in for_today/ with what it came to, so that today's scripts can be held to that. The same file in
each."""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2, as in T5
T5 = {"d_model": 64, "d_ff": 128, "d_kv": 32, "num_heads": 2, "num_layers": 2, "dropout_rate": 0.0}
BERT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
BERT |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 128}
# By the task: what the model is, the flags of the script here, those of today's, and the bounds of the figures
SUMMARIZATION = {
    "config": {"model_type": "t5", "decoder_start_token_id": 0, **T5},
    "flags": ["--max_source_length", "160", "--max_target_length", "32", "--learning_rate", "1e-2"],
    "today": ["--text_column", "text", "--summary_column", "summary", "--max_source_length", "160"]
    + ["--max_target_length", "32"],
    "bounds": {"eval_loss": (0.5, 3.0)},
}
CLASSIFICATION = {
    "config": {"model_type": "bert", **BERT},
    "flags": ["--label_column_name", "topic", "--learning_rate", "2e-3", "--max_steps", "250"],
    "today": ["--text_column_names", "text", "--label_column_name", "topic"],
    "bounds": {"eval_loss": (0, 0.5), "eval_accuracy": (0.9, 1)},
}
TASKS = {"summarization": SUMMARIZATION, "text-classification": CLASSIFICATION}


def make_folder(folder: Path, config: dict, texts: list[str]) -> None:
    """A configuration, and a tokenizer of byte pairs learnt from texts; no weights."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors, trainers
    from transformers import AutoConfig, PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(folder)
    given = dict(config)
    ids = {"vocab_size": backend.get_vocab_size(), "pad_token_id": 0, "eos_token_id": 1}
    AutoConfig.for_model(given.pop("model_type"), **given, **ids).save_pretrained(folder)


def run(script: str, *words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(HERE / script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def results_of(script: str, output: Path, *words: object) -> dict:
    done = run(script, *words, "--output_dir", output)
    if done.returncode:
        sys.exit(f"{script} fails.\n{done.stderr}")
    return json.loads((output / "eval_results.json").read_text())


def hostile(script: str, model: Path, data: Path, scratch: Path) -> list[str]:
    """What is wrong with how a script meets what it must not open."""
    problems = []
    for name, key, value in (
        ("config.json", "_attn_implementation_internal", "someone/kernel"),  # CVE-2026-4372
        ("config.json", "text_config", {"_attn_implementation_internal": "someone/kernel"}),
        ("config.json", "auto_map", {"AutoConfig": "code.Config"}),
        ("tokenizer_config.json", "chat_template", [{"name": "../../x", "template": ""}]),
        (None, None, None),
    ):
        folder = scratch / "hostile"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model, folder)
        if name:
            path = folder / name
            path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        else:
            folder = Path("google-t5/t5-small")  # of the hub
        done = run(
            script, "--model_name_or_path", folder, "--validation_file", data, "--output_dir", scratch / "none"
        )
        if done.returncode != 2 or str(folder) not in done.stderr or (scratch / "none").exists():
            problems.append(f"{script} ends with {done.returncode} for {key or folder}: {done.stderr[-300:]}")
    return problems


def main(scripts: dict[str, str], weights: str, *more: str) -> None:
    """
    Args:
        scripts: by the task.
        weights: the file of them that the scripts write.
        more: flags of this project's scripts.
    """
    left = HERE / "for_today"
    problems, figures = [], {}
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        files = {}
        for split in ("train", "validation"):
            files[split] = scratch / f"{split}.jsonl"
            files[split].write_bytes(gzip.decompress((HERE / "data" / f"{split}.jsonl.gz").read_bytes()))
        rows = [json.loads(line) for line in files["train"].read_text().splitlines()]
        texts = [row[column] for row in rows for column in ("text", "summary")]
        for task, script in scripts.items():
            of_task, start, output = TASKS[task], scratch / f"{task}-start", scratch / task
            flags = [*of_task["flags"], *more]
            make_folder(start, of_task["config"], texts)
            both = ["--train_file", files["train"], "--validation_file", files["validation"]]
            found = results_of(script, output, "--model_name_or_path", start, *both, *flags)
            losses = found.pop("losses")
            figures[task] = {"first_loss": losses[0], **found}
            for name, (least, most) in of_task["bounds"].items():
                if not least <= found[name] <= most:
                    problems.append(f"{task}: {name} is {found[name]}, not {least} to {most}")
            if not list(output.glob(f"{weights}*")):
                problems.append(f"{task}: no {weights} was written")
            again = results_of(
                script,
                scratch / f"{task}-again",
                *["--model_name_or_path", output, "--validation_file", files["validation"], *flags],
            )
            if abs(again["eval_loss"] - found["eval_loss"]) > 1e-6:
                problems.append(f"{task}: read again it has {again['eval_loss']}, not {found['eval_loss']}")
            problems += hostile(script, output, files["validation"], scratch)
            # As much as a user keeps of an output folder
            kept = shutil.ignore_patterns("eval_results.json", "training_args.bin")
            shutil.copytree(output, left / task / "model", ignore=kept)
            shutil.copyfile(files["validation"], left / task / "validation.jsonl")
            case = {"task": task, "flags": of_task["today"], "results": found}
            (left / task / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    if problems:
        sys.exit("\n".join(["The claim does not hold:", *problems]))

    loss, accuracy = figures["summarization"], figures["text-classification"]
    summary = (
        f"T5 from {loss['first_loss']:.2f} to a loss of {loss['eval_loss']:.2f}; BERT to {accuracy['eval_accuracy']:.1%} "
        f"of 9 topics; {weights} read again alike; what CVE-2026-4372 needs refused"
    )
    same = {"tasks": list(scripts), "rows": len(rows), "weights": weights}
    command = ["python", scripts["summarization"], "--model_name_or_path", "folder", "--train_file", "train.jsonl"]
    command += ["--validation_file", "validation.jsonl", "--output_dir", "out"]
    rounded = json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 6))
    print(json.dumps({"command": command, "summary": summary, "same": same, "of_machine": rounded}))
