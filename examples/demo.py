"""The demo behind `make demo`: data made on the spot, a small model trained from scratch, its answers shown.

    python examples/demo.py [--task summarization|translation|clm|images] [--model CHECKPOINT]
        [--data bulletins|docstrings|NAME_ON_THE_HUB] [FLAGS]

Everything that it does is a command that you can type yourself; it prints each before it runs it. Flags that
are not its own go to the training, as in `demo.py --seed 2 --learning_rate 1e-3`.
"""

import argparse
import json
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from triptych import command_line, metrics
from triptych.metrics import byte_models
from triptych.metrics.text import lead_baseline
from triptych.output import results

SAMPLES = ("bulletins", "docstrings")
LANGUAGES = ("en", "xx")  # of bulletins: English, and one that is made up
LONGEST_PROMPT = 5  # words


@dataclass(frozen=True)
class Task:
    """What a task's demo is: its script, the columns of bulletins that it reads, the scores shown; the
    flags of all its runs, and those of a small model from scratch, of about a million parameters."""

    script: str
    columns: tuple[str, ...]
    scores: tuple[str, ...]
    flags: str
    model: str
    steps: int


T5 = (
    "--model_type t5 --config_overrides d_model=128,d_ff=256,d_kv=32,num_heads=4,num_layers=2,dropout_rate=0 "
    "--learning_rate 2e-3 --warmup_steps 100 --per_device_train_batch_size 32 --group_by_length"
)
GENERATED = "--predict_with_generate --max_source_length 512 --max_target_length 64"
LLAMA = (
    "--model_type llama --config_overrides hidden_size=128,intermediate_size=384,num_hidden_layers=3,"
    "num_attention_heads=4,num_key_value_heads=2,max_position_embeddings=512,tie_word_embeddings=true "
    "--learning_rate 4e-3 --warmup_steps 50 --per_device_train_batch_size 8"
)
VIT = (
    "--model_type vit --config_overrides image_size=8,patch_size=2,hidden_size=64,intermediate_size=128,"
    "num_hidden_layers=3,num_attention_heads=4,hidden_dropout_prob=0 "
    "--learning_rate 3e-3 --warmup_steps 50 --lr_scheduler_type cosine --per_device_train_batch_size 64"
)
TASKS = {
    "summarization": Task(
        "summarization/run_summarization.py", (), ("rouge1", "rouge2", "rougeL"), GENERATED, T5, 1600
    ),
    "translation": Task(
        "translation/run_translation.py",
        ("translation",),
        ("bleu", "chrf"),
        f"{GENERATED} --source_lang {LANGUAGES[0]} --target_lang {LANGUAGES[1]}",
        T5,
        1600,
    ),
    "clm": Task(
        "language-modeling/run_clm.py",
        ("text",),
        ("bits_per_byte",),
        "--text_column text --block_size 256",
        LLAMA,
        400,
    ),
    "images": Task(
        "image-classification/run_image_classification.py", (), ("accuracy", "f1_macro"), "", VIT, 600
    ),
}


def run(*command: str) -> None:
    """Prints a command and runs it with this Python."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)


def read(folder: Path, split: str) -> list[dict]:
    """The first rows of a sample's file."""
    with (folder / "data" / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file][: 200 if split != "train" else None]


def texts_of(rows: list[dict], task: str) -> tuple[list[str], list[str]]:
    """What a model reads of the rows, and what it is to answer."""
    if task == "translation":
        sources, targets = ([row["translation"][language] for row in rows] for language in LANGUAGES)
        return sources, targets
    if task == "clm":
        words = [row["text"].split(" ") for row in rows]
        return [" ".join(each[:LONGEST_PROMPT]) for each in words], [row["text"] for row in rows]
    return [row["text"] for row in rows], [row["summary"] for row in rows]


def baselines(task: str, folder: Path) -> dict[str, dict[str, float]]:
    """What answers without any model come to, by what they are."""
    if task == "images":
        return {"logistic regression": of_pixels(folder / "data")}
    sources, references = texts_of(read(folder, "validation"), task)
    if task == "clm":
        known = texts_of(read(folder, "train"), task)[1]
        return {
            f"counts of {byte_models.ORDER} bytes": {
                "bits_per_byte": byte_models.Counts(known).bits_per_byte(references)
            },
            "xz, which has read all": {"bits_per_byte": byte_models.compressed(references, known)},
        }
    if task == "translation":
        copied = (
            metrics.load(name).compute(predictions=sources, references=references)
            for name in TASKS[task].scores
        )
        return {"the sources": {name: value for scores in copied for name, value in scores.items()}}
    words = round(sum(len(reference.split()) for reference in references) / len(references))
    leads = lead_baseline(sources, words)
    rouge = metrics.load("rouge").compute(predictions=leads, references=references)
    return {f"the first {words} words": {name: 100 * rouge[name] for name in TASKS[task].scores}}


def of_pixels(folder: Path) -> dict[str, float]:
    """The scores of a linear model of the pixels, on the pictures to evaluate."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from triptych.data.pictures import from_folder, values
    from triptych.images.decoding import decoded

    def read(split: str) -> tuple[np.ndarray, list[str]]:
        rows = from_folder(str(folder / split), split)
        pixels = [decoded(*each)[..., 0].ravel() / 255 for each in values(rows, "image")]
        return np.array(pixels), rows["label"][:]

    model = LogisticRegression(max_iter=3000).fit(*read("train"))
    pixels, labels = read("validation")
    numbers = {label: number for number, label in enumerate(sorted(set(labels)))}
    found = {"predictions": [numbers[label] for label in model.predict(pixels)]}
    found["references"] = [numbers[label] for label in labels]
    return metrics.load("accuracy").compute(**found) | metrics.load("f1_macro").compute(**found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="summarization", choices=TASKS, help="what the model is to learn")
    parser.add_argument("--data", default="bulletins", help="bulletins, docstrings, or a dataset on the hub")
    parser.add_argument("--model", help="a checkpoint to fine-tune, instead of a small model from scratch")
    parser.add_argument("--output_dir", default="build/demo", help="is emptied first (default: build/demo)")
    args, flags = parser.parse_known_args()
    if args.data not in SAMPLES and not args.model:
        parser.error("--data from the hub needs --model: a small T5 from scratch cannot learn long articles")
    if args.task != "summarization" and (args.data != "bulletins" or args.model):
        parser.error(f"{args.task} is shown with bulletins and a model from scratch alone")
    task, folder = TASKS[args.task], Path(args.output_dir)
    script = str(Path(__file__).parent / "pytorch" / task.script)
    shutil.rmtree(folder, ignore_errors=True)

    columns = ["--columns", *task.columns] if task.columns else []
    if args.task == "images":
        run("-m", "triptych.samples", "digits", f"{folder}/data")
        rows = [f"--{split}_dir={folder}/data/{split}" for split in ("train", "validation", "test")]
    elif args.data in SAMPLES:
        # Texts are in every sample.
        made = [] if task.columns == ("text",) else columns
        run("-m", "triptych.samples", args.data, f"{folder}/data", *made)
        rows = [f"--{split}_file={folder}/data/{split}.jsonl" for split in ("train", "validation", "test")]
    else:
        rows = ["--dataset_name", args.data]
        rows += ["--dataset_config", "3.0.0"] if args.data.endswith("cnn_dailymail") else []
    if args.model:
        model = ["--model_name_or_path", args.model]
        model += ["--source_prefix", "summarize: "] if "t5" in args.model.lower() else []
        recipe = ["--max_train_samples", "2000", "--num_train_epochs", "1", "--learning_rate", "3e-4"]
        recipe += ["--per_device_train_batch_size", "8"]
    elif args.task == "images":
        model, recipe = task.model.split(), ["--max_steps", str(task.steps)]
    else:
        make_tokenizer = [
            "-m",
            "triptych.samples",
            "tokenizer",
            f"{folder}/tokenizer",
            "--vocab_size",
            "3000",
        ]
        run(*make_tokenizer, *columns, "--files", f"{folder}/data/train.jsonl")
        model = ["--tokenizer_name", f"{folder}/tokenizer", *task.model.split()]
        # Of docstrings there are few, and longer ones.
        recipe = ["--max_steps", "400" if args.data == "docstrings" else str(task.steps)]
    common = [script, *model, *rows, *task.flags.split(), "--max_eval_samples", "200"]
    common += ["--max_predict_samples", "200", "--per_device_eval_batch_size", "50"]
    common += ["--save_strategy", "no", "--logging_steps", "25"]
    trained = [*common, *recipe, "--do_train", "--do_eval", "--do_predict", "--output_dir", f"{folder}/model"]
    # Before anything is computed: a wrong flag ends the demo here.
    classes = runpy.run_path(script)["ARGUMENTS"]
    command_line.parse(*classes, argv=[*trained[1:], *flags])
    if args.task != "images":  # whose classes are those of its training rows
        run(*common, "--do_eval", "--output_dir", f"{folder}/before")
    run(*trained, *flags)
    answers = folder / "model"
    if args.task == "clm":
        prompts, answers = folder / "prompts.txt", folder / "continued"
        sources, _ = texts_of(read(folder, "test")[:3], args.task)
        prompts.write_text("".join(f"{source}\n" for source in sources), encoding="utf-8")
        asked = [script, "--model_name_or_path", f"{folder}/model", "--test_file", str(prompts)]
        asked += ["--do_predict", "--max_new_tokens", "60", "--do_sample", "--top_p", "0.9"]
        run(*asked, "--output_dir", str(answers))
    show(folder, args.task, args.data, answers)


def show(folder: Path, task: str, name: str, answers: Path) -> None:
    """Prints scores before and after beside those of baselines, and three answers."""
    shown, table = ("loss", *TASKS[task].scores), {}
    for when, path in (("before", folder / "before"), ("after", folder / "model")):
        if (path / "eval_results.json").exists():
            found = json.loads((path / "eval_results.json").read_text())
            table[when] = {key: found[f"eval_{key}"] for key in shown}
    if name in SAMPLES:
        print("\nOn unseen rows, beside what needs no model:")
        table |= baselines(task, folder)
    print(results.summary_table(table))
    if task == "images":
        print(f"\nThe wrong ones first: {folder}/model/samples.png")
    elif name in SAMPLES:
        said = (answers / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
        rows = list(zip(*texts_of(read(folder, "test")[:3], task), said, strict=False))
        for source, reference, answer in rows:
            print(f"\ntext:      {source}\nreference: {reference}\nmodel:     {answer}")
    print(f"\nLoss curve:  {folder}/model/training_curve.png\nAll results: {folder}/model/all_results.json")


if __name__ == "__main__":
    main()
