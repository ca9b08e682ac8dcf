"""The demo behind `make demo`: data made on the spot, a small T5 trained from scratch, its summaries shown.

    python examples/demo.py [--data bulletins|docstrings|NAME_ON_THE_HUB] [--model CHECKPOINT] [FLAGS]

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
from pathlib import Path

from triptych import command_line, metrics
from triptych.metrics.text import lead_baseline
from triptych.output import results

SAMPLES = ("bulletins", "docstrings")
SCRIPT = str(Path(__file__).parent / "pytorch" / "summarization" / "run_summarization.py")
SHAPE = "d_model=128,d_ff=256,d_kv=32,num_heads=4,num_layers=2,dropout_rate=0"  # about a million parameters


def run(*command: str) -> None:
    """Prints a command and runs it with this Python."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)


def score(predictions: list[str], references: list[str]) -> dict[str, float]:
    """ROUGE F-measures in percent."""
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    return {name: 100 * rouge[name] for name in ("rouge1", "rouge2", "rougeL")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="bulletins", help="bulletins, docstrings, or a dataset on the hub")
    parser.add_argument("--model", help="a checkpoint to fine-tune, instead of a small T5 from scratch")
    parser.add_argument("--output_dir", default="build/demo", help="is emptied first (default: build/demo)")
    args, flags = parser.parse_known_args()
    if args.data not in SAMPLES and not args.model:
        parser.error("--data from the hub needs --model: a small T5 from scratch cannot learn long articles")
    folder = Path(args.output_dir)
    shutil.rmtree(folder, ignore_errors=True)

    if args.data in SAMPLES:
        run("-m", "triptych.samples", args.data, f"{folder}/data")
        rows = [f"--{split}_file={folder}/data/{split}.jsonl" for split in ("train", "validation", "test")]
    else:
        rows = ["--dataset_name", args.data]
        rows += ["--dataset_config", "3.0.0"] if args.data.endswith("cnn_dailymail") else []
    if args.model:
        model = ["--model_name_or_path", args.model]
        model += ["--source_prefix", "summarize: "] if "t5" in args.model.lower() else []
        recipe = ["--max_train_samples", "2000", "--num_train_epochs", "1", "--learning_rate", "3e-4"]
        recipe += ["--per_device_train_batch_size", "8"]
    else:
        make_tokenizer = [
            "-m",
            "triptych.samples",
            "tokenizer",
            f"{folder}/tokenizer",
            "--vocab_size",
            "3000",
        ]
        run(*make_tokenizer, "--files", f"{folder}/data/train.jsonl")
        model = ["--model_type", "t5", "--tokenizer_name", f"{folder}/tokenizer", "--config_overrides", SHAPE]
        steps = "1600" if args.data == "bulletins" else "400"  # of docstrings there are few, and longer ones
        recipe = ["--max_steps", steps, "--learning_rate", "2e-3", "--warmup_steps", "100"]
        recipe += ["--per_device_train_batch_size", "32", "--group_by_length"]
    common = [SCRIPT, *model, *rows, "--max_source_length", "512", "--max_target_length", "64"]
    common += [
        "--max_eval_samples",
        "200",
        "--max_predict_samples",
        "200",
        "--per_device_eval_batch_size",
        "50",
    ]
    common += ["--predict_with_generate", "--save_strategy", "no", "--logging_steps", "25"]
    trained = [*common, *recipe, "--do_train", "--do_eval", "--do_predict", "--output_dir", f"{folder}/model"]
    # Before anything is computed: a wrong flag ends the demo here.
    classes = runpy.run_path(SCRIPT)["ARGUMENTS"]
    command_line.parse(*classes, argv=[*trained[1:], *flags])
    run(*common, "--do_eval", "--output_dir", f"{folder}/before")
    run(*trained, *flags)
    show(folder, args.data)


def show(folder: Path, name: str) -> None:
    """Prints scores before and after beside the lead baseline, and three summaries."""
    before, after = (
        {key.removeprefix("eval_"): value for key, value in json.loads(path.read_text()).items()}
        for path in (folder / "before" / "eval_results.json", folder / "model" / "eval_results.json")
    )
    shown = ("loss", "rouge1", "rouge2", "rougeL")
    table = {"before": {key: before[key] for key in shown}, "after": {key: after[key] for key in shown}}
    if name in SAMPLES:
        validation, test = (
            [json.loads(line) for line in (folder / "data" / f"{split}.jsonl").open(encoding="utf-8")][:200]
            for split in ("validation", "test")
        )
        texts, references = ([row[column] for row in validation] for column in ("text", "summary"))
        words = round(sum(len(reference.split()) for reference in references) / len(references))
        table["lead baseline"] = score(lead_baseline(texts, words), references)
        print(f"\nOn unseen rows; the lead baseline is the first {words} words of each text:")
    print(results.summary_table(table))
    if name in SAMPLES:
        predictions = (
            (folder / "model" / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
        )
        for row, prediction in list(zip(test, predictions, strict=True))[:3]:
            print(f"\ntext:      {row['text']}\nreference: {row['summary']}\nmodel:     {prediction}")
    print(f"\nLoss curve:  {folder}/model/training_curve.png\nAll results: {folder}/model/all_results.json")


if __name__ == "__main__":
    main()
