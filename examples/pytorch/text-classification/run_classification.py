"""Fine-tune a model that classifies or scores texts in PyTorch, with the Hugging Face Trainer.

    python run_classification.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "torch", "accelerate", "sklearn")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych.data import columns
from triptych.data import label_schema
from triptych import metrics, run, schedule
from triptych.models import configs
from triptych.output import results
from triptych.arguments import flag
from triptych.pytorch.trainer_arguments import TrainerArguments


@dataclass
class ClassificationArguments(arguments.LabelArguments):
    """Text classification"""

    task_name: str | None = flag(None, "GLUE task, which says dataset, columns, metrics", tuple(columns.GLUE))
    text_column_names: str | None = flag(None, "column of the texts, or two for pairs: premise,hypothesis")
    max_seq_length: int = flag(128, "cut texts to this many tokens")
    pad_to_max_length: bool = flag(False, "pad batches to --max_seq_length instead of their longest rows")

    def wanted_columns(self) -> dict[str, str | None]:
        return {**columns.texts(self.text_column_names), "label": self.label_column_name}


ARGUMENTS = (arguments.ModelArguments, ClassificationArguments, TrainerArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForSequenceClassification

from triptych.pytorch import models
from triptych.pytorch.trainer import Trainer


def preprocess(rows, tokenizer, names, labels, args):
    """Token ids of texts or pairs of texts, and targets; prediction needs no labels."""
    texts = [rows[names[role]] for role in ("text", "text_pair") if role in names]
    encoded = tokenizer(*texts, max_length=args.max_seq_length, truncation=True)
    tokens = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
    if labels.column in rows:
        tokens["labels"] = labels.encode(rows[labels.column])
    return tokens


def collate(rows, tokenizer, config, args):
    """One batch of padded arrays from token ids by row, with types of tokens if the model has them."""
    length = args.max_seq_length if args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, length),
    }
    if "token_type_ids" in configs.input_names(config):
        types = rows.get("token_type_ids", [[0]] * len(rows["input_ids"]))
        batch["token_type_ids"] = batching.pad(types, 0, batch["input_ids"].shape[1])
    if "labels" in rows:
        whole, several = (config.problem_type == kind for kind in (label_schema.SINGLE, label_schema.MULTI))
        labels = np.array(rows["labels"], np.int64 if whole else np.float32)
        batch["labels"] = labels.reshape(-1, config.num_labels) if several else labels
    return batch


def predict(logits, problem_type):
    """Numbers of labels, or 0 and 1 for each of several, and their probabilities; or values."""
    if problem_type == label_schema.REGRESSION:
        return logits[:, 0], None
    if problem_type == label_schema.MULTI:
        return (logits > 0).astype(int), np.exp(-np.logaddexp(0, -logits))
    return logits.argmax(axis=1), np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))


def score(predictions, references, metric_names):
    """The metrics of those names."""
    found = {}
    for name in metric_names:
        found |= metrics.load(name).compute(predictions=predictions, references=references)
    return found


def target_loss(logits, labels, label_smoothing=0.0):
    """Summed over targets: cross-entropy of a row's label, or of each of several, or the squared error."""
    logits = logits.float()
    if not labels.is_floating_point():
        return cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
    if labels.dim() == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return losses[labels != -100].sum()


def main():
    # ---------------------------------------------------------------------------------------------- Arguments
    model_args, data_args, args = command_line.parse(*ARGUMENTS, description=__doc__)
    models.require_precision(args, args.device)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, names = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = configs.load_tokenizer(model_args, ends=False)
    config = configs.load_config(model_args, tokenizer)
    labels = label_schema.settle(config, raw, names.get("label"), data_args, args)
    metric_names = metrics.of_labels(labels.problem_type, data_args.metric_name)
    model = models.load(
        AutoModelForSequenceClassification, model_args, config, args, data_args.ignore_mismatched_sizes
    )
    models.require_positions(model, data_args)
    checkpoints.require_space(args.output_dir, model.num_parameters(), args)
    places = {"devices": args.world_size, "process": args.process_index, "processes": args.world_size}
    state = run.start(model_args, data_args, args, raw, device=args.device.type, **places)

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, labels=labels, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), args.world_size)

    def score_rows(split, logits):
        answers = predict(np.array(logits), labels.problem_type)
        references = labels.of(raw[split])
        return score(answers[0], references, metric_names) if references else {}, answers

    def evaluate(split, prefix):
        values, logits = trainer.run_rows(tokenized[split], prefix)
        found, answers = score_rows(split, logits)
        return values | results.prefixed(prefix, found), answers

    # -------------------------------------------------------------------------------------------------- Train
    trainer = Trainer(
        model=model,
        args=args,
        repository=repository,
        summed_loss=target_loss,
        collate=to_batch,
        train_dataset=tokenized.get("train"),
        eval_dataset=tokenized.get("validation"),
        processing_class=tokenizer,
        compute_metrics=lambda logits: score_rows("validation", logits)[0],
    )
    all_metrics = {}
    if args.do_train:
        all_metrics |= trainer.train_to_the_end(plan, state)
        results.save_training(args.output_dir, all_metrics, state.summary(plan, args), labels.loss_unit)

    # ----------------------------------------------------------------------------------------------- Evaluate
    if args.do_eval:
        for split, prefix in data.parts(raw, "validation", "eval"):
            values, answers = evaluate(split, prefix)
            all_metrics |= values
            labels.save(args.output_dir, prefix, values, answers, raw[split])

    # ------------------------------------------------------------------------------------------------ Predict
    if args.do_predict:
        for split, prefix in data.parts(raw, "test", "predict"):
            values, answers = evaluate(split, prefix)
            all_metrics |= values
            labels.save(args.output_dir, prefix, values, answers, raw[split])

    # -------------------------------------------------------------------------------------------------- Share
    hub.save_card(args, model_args, data_args, "text-classification", all_metrics, repository)
    run.finish(args, all_metrics)
    hub.push(repository)


if __name__ == "__main__":
    run.main(main)
