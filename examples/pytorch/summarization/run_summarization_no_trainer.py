"""Fine-tune a sequence-to-sequence model for summarization in PyTorch: the loop written out, on Accelerate.

    python run_summarization_no_trainer.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "torch", "accelerate", "rouge_score")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych import metrics, run, schedule
from triptych.models import configs
from triptych.output import results
from triptych.arguments import flag
from triptych.progress import Progress
from triptych.pytorch.arguments import TrainingArguments


@dataclass
class SummarizationArguments(arguments.DataArguments):
    """Summarization"""

    text_column: str | None = flag(None, "column of the texts (default: known, or found by its name)")
    summary_column: str | None = flag(None, "column of the summaries, likewise")
    source_prefix: str = flag("", 'put before every text; T5 was pretrained with "summarize: "')
    max_source_length: int = flag(1024, "cut texts to this many tokens")
    max_target_length: int = flag(128, "cut summaries to this many tokens in training")
    val_max_target_length: int | None = flag(None, "longest generated summary (default: --max_target_length)")
    pad_to_max_length: bool = flag(False, "pad batches to the maximum lengths instead of their longest rows")
    ignore_pad_token_for_loss: bool = flag(True, "leave padding of the summaries out of the loss")
    num_beams: int | None = flag(None, "beams of the search in generation (default: as the checkpoint says)")
    lang: str | None = flag(None, "language code of texts and summaries, for multilingual models")
    forced_bos_token: str | None = flag(None, "first generated token of such a model (default: --lang)")
    resize_position_embeddings: bool = flag(False, "enlarge a position table that is shorter than the texts")

    predicted_roles = ("summary",)

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column, "summary": self.summary_column}


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainingArguments)
if __name__ == "__main__":
    command_line.parse(*ARGUMENTS, description=__doc__)  # answers -h and wrong input before slow imports

import torch
from accelerate import Accelerator

from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM

from triptych.pytorch import loading, models, optimization, saving, sharding
from triptych.pytorch.processes import gather_object


def preprocess(rows, tokenizer, names, args):
    """Token ids of texts and summaries; prediction needs no summaries."""
    texts = [args.source_prefix + text for text in rows[names["text"]]]
    tokens = {"input_ids": tokenizer(texts, max_length=args.max_source_length, truncation=True)["input_ids"]}
    if names.get("summary") in rows:
        labels = tokenizer(
            text_target=rows[names["summary"]], max_length=args.max_target_length, truncation=True
        )
        tokens["labels"] = labels["input_ids"]
    return tokens


def collate(rows, tokenizer, config, args):
    """One batch of padded arrays from token ids by row; the decoder reads the labels shifted to the right."""
    source_length = args.max_source_length if args.pad_to_max_length else None
    target_length = args.max_target_length if args.pad_to_max_length else None
    batch = {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, source_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, source_length),
    }
    if "labels" in rows:
        labels = batching.pad(rows["labels"], tokenizer.pad_token_id, target_length)
        batch["decoder_input_ids"] = np.insert(labels[:, :-1], 0, config.decoder_start_token_id, axis=1)
        label_padding = -100 if args.ignore_pad_token_for_loss else tokenizer.pad_token_id
        batch["labels"] = batching.pad(rows["labels"], label_padding, target_length)
    return batch


def score(predictions, references, tokenizer):
    """ROUGE F-measures in percent, and the mean number of generated tokens."""
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    lengths = [len(ids) for ids in tokenizer(predictions)["input_ids"]]
    return {**{name: 100 * value for name, value in rouge.items()}, "gen_len": float(np.mean(lengths))}


def token_loss(logits, labels, label_smoothing=0.0):
    """Cross-entropy summed over the target tokens; the optimizer step divides it once by their number."""
    return cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )


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
    tokenizer = configs.load_tokenizer(model_args)
    config = configs.load_config(model_args, tokenizer)
    model = models.load(AutoModelForSeq2SeqLM, model_args, config, args)
    generation = configs.generation_arguments(tokenizer, data_args)
    models.require_positions(model, data_args)
    checkpoints.require_space(args.output_dir, model.num_parameters(), args)
    places = {"devices": processes, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=accelerator.device.type, **places)
    state.require_same_step(gather_object([state.step]))

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, args=data_args)
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
        target_tokens, source_tokens = accelerator.reduce(torch.tensor(counts, device=accelerator.device))
        step_loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(batches, start=1):
            batch = loading.as_tensors(batch, accelerator.device)
            labels = batch.pop("labels")
            with accelerator.no_sync(model) if number < len(batches) else nullcontext():
                loss = token_loss(model(**batch).logits, labels, args.label_smoothing_factor) / target_tokens
                accelerator.backward(loss * processes)  # gradients are averaged over the processes
            step_loss += loss.detach()
        grad_norm = accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        tokens = int(target_tokens + source_tokens)
        return accelerator.reduce(step_loss).item(), sharding.whole(grad_norm).item(), tokens

    @torch.no_grad()
    @sharding.gathered(plain_model)
    def evaluate(split, prefix, generate):
        plain_model.eval()
        began, outcomes = time.perf_counter(), []
        for batch_rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, processes):
            stop.check(gather_object([stop.number]))
            rows = batching.share(batch_rows, process, processes)
            if not len(rows):
                continue
            batch = loading.as_tensors(to_batch(tokenized[split][rows]), accelerator.device)
            labels, loss, target_tokens, ids = batch.pop("labels", None), 0.0, 0, None
            if labels is not None:
                loss = token_loss(plain_model(**batch).logits, labels).item()
                target_tokens = (labels != -100).sum().item()
            if generate:
                source = {name: batch[name] for name in ("input_ids", "attention_mask")}
                ids = plain_model.generate(**source, **generation).tolist()
            outcomes.append((rows.tolist(), loss, target_tokens, ids))
        values, ids = results.combine(gather_object(outcomes), prefix, time.perf_counter() - began)
        predictions = tokenizer.batch_decode(ids, skip_special_tokens=True)
        if generate and names.get("summary") in raw[split].column_names:
            values |= results.prefixed(prefix, score(predictions, raw[split][names["summary"]], tokenizer))
        return values, predictions

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
                    values, _ = evaluate("validation", "eval", args.predict_with_generate)
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
        results.save_training(args.output_dir, all_metrics, state.summary(plan, args))

    # ----------------------------------------------------------------------------------------------- Evaluate
    if args.do_eval:
        values, _ = evaluate("validation", "eval", args.predict_with_generate)
        all_metrics |= values
        results.save_metrics(args.output_dir, "eval", values)

    # ------------------------------------------------------------------------------------------------ Predict
    if args.do_predict:
        values, predictions = evaluate("test", "predict", generate=True)
        all_metrics |= values
        results.save_metrics(args.output_dir, "predict", values)
        results.save_predictions(args.output_dir, predictions)

    # -------------------------------------------------------------------------------------------------- Share
    hub.save_card(args, model_args, data_args, "summarization", all_metrics, repository)
    run.finish(args, all_metrics)
    hub.push(repository)


if __name__ == "__main__":
    run.main(main)
