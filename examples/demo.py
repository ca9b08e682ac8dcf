"""The demo behind `make demo`: data made on the spot, a small T5 trained from scratch, its answers shown.

    python examples/demo.py [--task summarization|translation] [--data bulletins|docstrings|NAME_ON_THE_HUB]
        [--model CHECKPOINT] [FLAGS]

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
SCORES = {"summarization": ("rouge1", "rouge2", "rougeL"), "translation": ("bleu", "chrf")}
LANGUAGES = ("en", "xx")  # of bulletins: English, and one that is made up
SHAPE = "d_model=128,d_ff=256,d_kv=32,num_heads=4,num_layers=2,dropout_rate=0"  # about a million parameters


def run(*command: str) -> None:
    """Prints a command and runs it with this Python."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    subprocess.run([sys.executable, *command], check=True)


def texts_of(rows: list[dict], task: str) -> tuple[list[str], list[str]]:
    """What a model reads of the rows, and what it is to answer."""
    if task == "translation":
        sources, targets = ([row["translation"][language] for row in rows] for language in LANGUAGES)
        return sources, targets
    return [row["text"] for row in rows], [row["summary"] for row in rows]


def baseline(task: str, sources: list[str], references: list[str]) -> tuple[str, dict[str, float]]:
    """What answers without any model come to, and which they are."""
    if task == "translation":
        copied = (
            metrics.load(name).compute(predictions=sources, references=references) for name in SCORES[task]
        )
        return "the sources copied", {name: value for scores in copied for name, value in scores.items()}
    words = round(sum(len(reference.split()) for reference in references) / len(references))
    leads = lead_baseline(sources, words)
    rouge = metrics.load("rouge").compute(predictions=leads, references=references)
    return f"the first {words} words of each text", {name: 100 * rouge[name] for name in SCORES[task]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="summarization", choices=SCORES, help="what the model is to learn")
    parser.add_argument("--data", default="bulletins", help="bulletins, docstrings, or a dataset on the hub")
    parser.add_argument("--model", help="a checkpoint to fine-tune, instead of a small T5 from scratch")
    parser.add_argument("--output_dir", default="build/demo", help="is emptied first (default: build/demo)")
    args, flags = parser.parse_known_args()
    if args.data not in SAMPLES and not args.model:
        parser.error("--data from the hub needs --model: a small T5 from scratch cannot learn long articles")
    if args.task == "translation" and (args.data != "bulletins" or args.model):
        parser.error("translation is shown with bulletins and a model from scratch alone")
    script = str(Path(__file__).parent / "pytorch" / args.task / f"run_{args.task}.py")
    folder = Path(args.output_dir)
    shutil.rmtree(folder, ignore_errors=True)

    if args.data in SAMPLES:
        columns = ["--columns", "translation"] if args.task == "translation" else []
        run("-m", "triptych.samples", args.data, f"{folder}/data", *columns)
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
        run(*make_tokenizer, *columns, "--files", f"{folder}/data/train.jsonl")
        model = ["--model_type", "t5", "--tokenizer_name", f"{folder}/tokenizer", "--config_overrides", SHAPE]
        steps = "1600" if args.data == "bulletins" else "400"  # of docstrings there are few, and longer ones
        recipe = ["--max_steps", steps, "--learning_rate", "2e-3", "--warmup_steps", "100"]
        recipe += ["--per_device_train_batch_size", "32", "--group_by_length"]
    common = [script, *model, *rows, "--max_source_length", "512", "--max_target_length", "64"]
    common += [
        "--max_eval_samples",
        "200",
        "--max_predict_samples",
        "200",
        "--per_device_eval_batch_size",
        "50",
    ]
    if args.task == "translation":
        common += ["--source_lang", LANGUAGES[0], "--target_lang", LANGUAGES[1]]
    common += ["--predict_with_generate", "--save_strategy", "no", "--logging_steps", "25"]
    trained = [*common, *recipe, "--do_train", "--do_eval", "--do_predict", "--output_dir", f"{folder}/model"]
    # Before anything is computed: a wrong flag ends the demo here.
    classes = runpy.run_path(script)["ARGUMENTS"]
    command_line.parse(*classes, argv=[*trained[1:], *flags])
    run(*common, "--do_eval", "--output_dir", f"{folder}/before")
    run(*trained, *flags)
    show(folder, args.task, args.data)


def show(folder: Path, task: str, name: str) -> None:
    """Prints scores before and after beside those of a baseline, and three answers."""
    before, after = (
        {key.removeprefix("eval_"): value for key, value in json.loads(path.read_text()).items()}
        for path in (folder / "before" / "eval_results.json", folder / "model" / "eval_results.json")
    )
    shown = ("loss", *SCORES[task])
    table = {"before": {key: before[key] for key in shown}, "after": {key: after[key] for key in shown}}
    if name in SAMPLES:
        validation, test = (
            [json.loads(line) for line in (folder / "data" / f"{split}.jsonl").open(encoding="utf-8")][:200]
            for split in ("validation", "test")
        )
        what, table["baseline"] = baseline(task, *texts_of(validation, task))
        print(f"\nOn unseen rows; the baseline is {what}:")
    print(results.summary_table(table))
    if name in SAMPLES:
        answers = (folder / "model" / "generated_predictions.txt").read_text(encoding="utf-8").splitlines()
        for source, reference, answer in list(zip(*texts_of(test, task), answers, strict=True))[:3]:
            print(f"\ntext:      {source}\nreference: {reference}\nmodel:     {answer}")
    print(f"\nLoss curve:  {folder}/model/training_curve.png\nAll results: {folder}/model/all_results.json")


if __name__ == "__main__":
    main()
