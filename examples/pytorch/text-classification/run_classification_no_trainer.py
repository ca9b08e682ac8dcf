"""Fine-tune a model that classifies or scores texts in PyTorch: the loop written out, on Accelerate.

    python run_classification_no_trainer.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

import time
from contextlib import nullcontext
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
from triptych.progress import Progress
from triptych.pytorch.arguments import TrainingArguments


@dataclass
class ClassificationArguments(arguments.LabelArguments):
    """Text classification"""

    task_name: str | None = flag(None, "GLUE task, which says dataset, columns, metrics", tuple(columns.GLUE))
    text_column_names: str | None = flag(None, "column of the texts, or two for pairs: premise,hypothesis")
    max_seq_length: int = flag(128, "cut texts to this many tokens")
    pad_to_max_length: bool = flag(False, "pad batches to --max_seq_length instead of their longest rows")

    def wanted_columns(self) -> dict[str, str | None]:
        return {**columns.texts(self.text_column_names), "label": self.label_column_name}


ARGUMENTS = (arguments.ModelArguments, ClassificationArguments, TrainingArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

import torch
from accelerate import Accelerator

from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AutoModelForSequenceClassification

from triptych.pytorch import loading, models, optimization, saving, sharding
from triptych.pytorch.processes import gather_object


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
    fsdp = sharding.asked_for(args)
    accelerator = Accelerator(
        cpu=args.use_cpu or not torch.accelerator.is_available(),  # else it overlooks a launcher's processes
        mixed_precision="bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        dynamo_backend="inductor" if args.torch_compile else "no",
    )
    process, processes = accelerator.process_index, accelerator.num_processes
    models.require_precision(args, accelerator.device)
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
    places = {"devices": processes, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=accelerator.device.type, **places)
    state.require_same_step(gather_object([state.step]))

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, labels=labels, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), processes)

    # -------------------------------------------------------------------------------------------------- Steps
    model = accelerator.prepare_model(model, evaluation_mode=fsdp)
    plain_model = accelerator.unwrap_model(model, keep_torch_compile=False)
    if fsdp:
        sharding.shard(plain_model, accelerator.device)
    optimizer = accelerator.prepare_optimizer(optimization.optimizer(plain_model, args))
    stop = run.Stop()

    def train_step(batches, learning_rate):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        counts = sum(np.array([(b["labels"] != -100).sum(), b["attention_mask"].sum()]) for b in batches)
        targets, tokens = accelerator.reduce(torch.tensor(counts, device=accelerator.device))
        step_loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches, start=1):
            batch = loading.as_tensors(batch, accelerator.device)
            of_batch = batch.pop("labels")
            with accelerator.no_sync(model) if number < len(batches) else nullcontext():
                loss = target_loss(model(**batch).logits, of_batch, args.label_smoothing_factor) / targets
                accelerator.backward(loss * processes)  # gradients are averaged over the processes
            step_loss += loss.detach()
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        return accelerator.reduce(step_loss).item(), sharding.whole(grad_norm).item(), int(tokens)

    @torch.no_grad()
    @sharding.gathered(plain_model)
    def evaluate(split, prefix):
        plain_model.eval()
        began, outcomes = time.perf_counter(), []
        for batch_rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, processes):
            stop.check(gather_object([stop.number]))
            rows = batching.share(batch_rows, process, processes)
            if not len(rows):
                continue
            batch = loading.as_tensors(to_batch(tokenized[split][rows]), accelerator.device)
            of_batch, loss, targets = batch.pop("labels", None), 0.0, 0
            logits = plain_model(**batch).logits
            if of_batch is not None:
                loss, targets = target_loss(logits, of_batch).item(), (of_batch != -100).sum().item()
            outcomes.append((rows.tolist(), loss, targets, logits.float().tolist()))
        values, logits = results.combine(gather_object(outcomes), prefix, time.perf_counter() - began)
        answers = predict(np.array(logits), labels.problem_type)
        if references := labels.of(raw[split]):
            values |= results.prefixed(prefix, score(answers[0], references, metric_names))
        return values, answers

    def save(folder, tensors):
        plain_model.save_pretrained(folder, state_dict=tensors)
        configs.save_tokenizer(tokenizer, folder)

    def save_checkpoint():
        tensors = saving.gather_weights(plain_model)
        moments = saving.gather_optimizer(plain_model, optimizer)
        if accelerator.is_main_process:
            with checkpoints.writing(args.output_dir, state.step) as folder:
                save(folder, tensors)
                saving.save_optimizer(folder, moments)
                state.save(folder)
            checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
            hub.push_checkpoint(repository, state.step)

    # -------------------------------------------------------------------------------------------------- Train
    all_metrics = {}
    if args.do_train:
        if state.checkpoint:
            saving.load_weights(state.checkpoint, plain_model)
            saving.load_optimizer(state.checkpoint, plain_model, optimizer)
        steps = batching.step_batches(tokenized["train"], to_batch, args, start=state.step, **places)
        progress = Progress(plan, args, state, quiet=process > 0)
        with stop.after(save_checkpoint):
            while not state.ended(plan, args):
                is_best = False
                if state.evaluation_due(plan):
                    values, _ = evaluate("validation", "eval")
                    progress.add(state.step, values)
                    is_best = state.evaluated(values, args)
                else:
                    optimization.seed_step(args.seed, state.step + 1, process)
                    rate = state.learning_rate(plan, args)
                    loss, grad_norm, tokens = train_step(next(steps), rate)
                    state.step += 1
                    progress.step(state.step, loss, rate, grad_norm, tokens)
                stop.check(gather_object([stop.number]))
                if plan.saves_after(state.step, is_best) and not state.evaluation_due(plan):
                    save_checkpoint()
        accelerator.wait_for_everyone()
        if args.load_best_model_at_end and state.best_step:
            saving.load_weights(checkpoints.of_step(args.output_dir, state.best_step), plain_model)
        all_metrics |= progress.train_metrics(state.step)
        tensors = saving.gather_weights(plain_model)
        if accelerator.is_main_process:
            with checkpoints.replacing(args.output_dir) as folder:
                save(folder, tensors)
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
