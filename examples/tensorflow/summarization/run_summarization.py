"""Fine-tune a sequence-to-sequence model for summarization in TensorFlow: KerasHub, the loop written out.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

import time
from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "tensorflow", "keras_hub", "rouge_score")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych import metrics, run, schedule
from triptych.models import configs, decoding, tensor_files
from triptych.output import results
from triptych.arguments import flag
from triptych.progress import Progress
from triptych.tensorflow.arguments import TrainingArguments


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

import tensorflow as tf

from triptych.tensorflow import conversion, devices, optimization
from triptych.tensorflow import pretrained as tensorflow_pretrained
from triptych.tensorflow.generation import generate


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
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    if label_smoothing:
        of_all_tokens = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * of_all_tokens
    return tf.reduce_sum(tf.where(labels != -100, losses, 0.0))


def main():
    # ---------------------------------------------------------------------------------------------- Arguments
    model_args, data_args, args = command_line.parse(*ARGUMENTS, description=__doc__)
    strategy = devices.start(args)
    process, processes, replicas = devices.places(strategy)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, names = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = configs.load_tokenizer(model_args)
    config = configs.load_config(model_args, tokenizer)
    folder = tensor_files.local_folder(model_args)
    generation_config = decoding.generation_config(folder, config)
    asked = decoding.search_of(generation_config, **configs.generation_arguments(tokenizer, data_args))
    with strategy.scope():
        model = tensorflow_pretrained.load(folder, config, data_args, args)
    checkpoints.require_space(args.output_dir, sum(np.prod(w.shape) for w in model.weights), args)
    places = {"devices": replicas, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=devices.describe(strategy), **places)
    state.require_same_step(devices.over_processes(strategy, state.step))

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, args=data_args)
    tokenized = data.tokenize(raw, tokenize, names, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, args=data_args)
    plan = schedule.plan(args, data.count(tokenized.get("train")), replicas)

    # -------------------------------------------------------------------------------------------------- Steps
    with strategy.scope():
        optimizer = optimization.optimizer(model, args)
        sums = devices.zeros_like(model.trainable_variables)
    loss_scale, stop = optimization.LossScale(args.fp16), run.Stop()
    on_each_device, by_device = devices.on_each(strategy), strategy.experimental_local_results

    # Tokens of any number of rows and any length: one trace serves all batches.
    token_ids, scalar = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec(())
    source = {"input_ids": token_ids, "attention_mask": token_ids}
    both = {**source, "decoder_input_ids": token_ids, "labels": token_ids}

    @tf.function(input_signature=[both, scalar, scalar, tf.TensorSpec((), tf.int32)], jit_compile=False)
    @on_each_device
    def add_gradients(batch, target_tokens, scale, seed):
        with tf.GradientTape() as tape:
            logits = model(batch, training=True, seed=seed)
            loss = token_loss(logits, batch["labels"], args.label_smoothing_factor) / target_tokens
            scaled_loss = loss * scale
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        return devices.sum_over_devices(loss)

    @tf.function(input_signature=[scalar, scalar], jit_compile=False)
    @on_each_device
    def update(learning_rate, scale):
        gradients = devices.sum_over_devices([total / scale for total in sums])
        gradients, norm = optimization.clip_by_global_norm(gradients, args.max_grad_norm)
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(gradients, model.trainable_variables)
        for total in sums:
            total.assign(tf.zeros_like(total))
        return norm

    @tf.function(input_signature=[both], jit_compile=False)
    @on_each_device
    def loss_step(batch):
        return devices.sum_over_devices(token_loss(model(batch), batch["labels"]))

    @tf.function(input_signature=[source], jit_compile=False)
    @on_each_device
    def generate_step(batch):
        return generate(model, batch["input_ids"], batch["attention_mask"], asked)

    def train_step(batches, learning_rate, step):
        target_tokens = sum((batch["labels"] != -100).sum() for batch in batches)
        source_tokens = sum(batch["attention_mask"].sum() for batch in batches)
        loss = 0.0
        for number, batch in enumerate(batches):
            # Dropout is a function of (seed, step, batch), so that no generator state need be saved.
            seed = (args.seed + 1_000_003 * step + 7919 * number) % 2**31
            batch_loss = add_gradients(
                devices.as_tensors(batch), float(target_tokens), loss_scale.value, seed
            )
            loss += float(by_device(batch_loss)[0])
        grad_norm = float(by_device(update(learning_rate, loss_scale.value))[0])
        loss_scale.update(np.isfinite(grad_norm))
        return loss, grad_norm, int(target_tokens + source_tokens)

    def evaluate(split, prefix, generate):
        began, outcomes = time.perf_counter(), []
        for rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, replicas):
            stop.check(devices.over_processes(strategy, stop.number))
            batch = devices.as_tensors(to_batch(tokenized[split][rows]))
            loss, target_tokens, ids = 0.0, 0, None
            if "labels" in batch:
                loss = float(by_device(loss_step(batch))[0])
                target_tokens = int((batch["labels"].numpy() != -100).sum())
            if generate:
                ids = devices.gather(strategy, generate_step({name: batch[name] for name in source}))
            outcomes.append((rows.tolist(), loss, target_tokens, ids))
        values, ids = results.combine(outcomes, prefix, time.perf_counter() - began)
        predictions = tokenizer.batch_decode(ids, skip_special_tokens=True)
        if generate and names.get("summary") in raw[split].column_names:
            values |= results.prefixed(prefix, score(predictions, raw[split][names["summary"]], tokenizer))
        return values, predictions

    def save(folder):
        conversion.save(model, folder, generation_config)
        configs.save_tokenizer(tokenizer, folder)

    def save_checkpoint():
        if process == 0:
            with checkpoints.writing(args.output_dir, state.step) as folder:
                save(folder)
                optimization.save_state(folder, optimizer, model)
                state.save(folder)
            checkpoints.rotate(args.output_dir, args.save_total_limit, state.best_step)
            hub.push_checkpoint(repository, state.step)

    # -------------------------------------------------------------------------------------------------- Train
    all_metrics = {}
    if args.do_train:
        if state.checkpoint:
            conversion.restore(model, state.checkpoint)
            optimization.load_state(state.checkpoint, optimizer, model)
        # The rows of all processes: of each batch every device takes its own.
        steps = batching.step_batches(tokenized["train"], to_batch, args, start=state.step, devices=replicas)
        progress = Progress(plan, args, state, quiet=process > 0)
        with stop.after(save_checkpoint):
            while not state.ended(plan, args):
                is_best = False
                if state.evaluation_due(plan):
                    values, _ = evaluate("validation", "eval", args.predict_with_generate)
                    progress.add(state.step, values)
                    is_best = state.evaluated(values, args)
                else:
                    rate = state.learning_rate(plan, args)
                    loss, grad_norm, tokens = train_step(next(steps), rate, state.step)
                    state.step += 1
                    progress.step(state.step, loss, rate, grad_norm, tokens)
                stop.check(devices.over_processes(strategy, stop.number))
                if plan.saves_after(state.step, is_best) and not state.evaluation_due(plan):
                    save_checkpoint()
        if args.load_best_model_at_end and state.best_step:
            conversion.restore(model, checkpoints.of_step(args.output_dir, state.best_step))
        all_metrics |= progress.train_metrics(state.step)
        if process == 0:
            with checkpoints.replacing(args.output_dir) as folder:
                save(folder)
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
