"""Fine-tune a model that classifies or scores texts in TensorFlow: KerasHub, the loop written out.

    python run_classification.py --model_name_or_path google-bert/bert-base-uncased \\
        --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, accuracy and the scores of each label,
`confusion_matrix.png` and `training_curve.png`. `--task_name mrpc` and the like do a task of GLUE.
"""

import time
from dataclasses import dataclass
from functools import partial

from triptych import require

require("0.1.0", "tensorflow", "keras_hub", "sklearn")  # before what may be missing

import numpy as np

from triptych import arguments, batching, command_line, data, hub
from triptych.output import checkpoints
from triptych.data import columns
from triptych.data import label_schema
from triptych import metrics, run, schedule
from triptych.models import configs, tensor_files
from triptych.output import results
from triptych.arguments import flag
from triptych.progress import Progress
from triptych.tensorflow.arguments import TrainingArguments


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

import tensorflow as tf

from triptych.tensorflow import conversion, devices, optimization
from triptych.tensorflow import pretrained as tensorflow_pretrained


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
    if labels.dtype.is_integer:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        of_all_labels = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * of_all_labels
    elif labels.shape.rank == 1:
        losses = (logits[:, 0] - labels) ** 2
    else:
        smooth = labels * (1 - label_smoothing) + label_smoothing / 2
        losses = tf.nn.sigmoid_cross_entropy_with_logits(smooth, logits)
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
    tokenizer = configs.load_tokenizer(model_args, ends=False)
    config = configs.load_config(model_args, tokenizer)
    labels = label_schema.settle(config, raw, names.get("label"), data_args, args)
    metric_names = metrics.of_labels(labels.problem_type, data_args.metric_name)
    head = "ForSequenceClassification", data_args.ignore_mismatched_sizes
    folder = tensor_files.local_folder(model_args)
    with strategy.scope():
        model = tensorflow_pretrained.load(folder, config, data_args, args, *head)
    checkpoints.require_space(args.output_dir, sum(np.prod(w.shape) for w in model.weights), args)
    places = {"devices": replicas, "process": process, "processes": processes}
    state = run.start(model_args, data_args, args, raw, device=devices.describe(strategy), **places)
    state.require_same_step(devices.over_processes(strategy, state.step))

    # ------------------------------------------------------------------------------------------------- Tokens
    tokenize = partial(preprocess, tokenizer=tokenizer, names=names, labels=labels, args=data_args)
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
    inputs = dict.fromkeys(configs.input_names(config), token_ids)
    whole, several = (labels.problem_type == kind for kind in (label_schema.SINGLE, label_schema.MULTI))
    of_rows = tf.TensorSpec((None, None) if several else (None,), tf.int32 if whole else tf.float32)
    both = {**inputs, "labels": of_rows}

    @tf.function(input_signature=[both, scalar, scalar, tf.TensorSpec((), tf.int32)], jit_compile=False)
    @on_each_device
    def add_gradients(batch, targets, scale, seed):
        with tf.GradientTape() as tape:
            logits = model(batch, training=True, seed=seed)
            loss = target_loss(logits, batch["labels"], args.label_smoothing_factor) / targets
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

    @tf.function(input_signature=[inputs], jit_compile=False)
    @on_each_device
    def logits_step(batch):
        return model(batch)

    def train_step(batches, learning_rate, step):
        targets = sum((batch["labels"] != -100).sum() for batch in batches)
        tokens = sum(batch["attention_mask"].sum() for batch in batches)
        loss = 0.0
        for number, batch in enumerate(batches):
            # Dropout is a function of (seed, step, batch), so that no generator state need be saved.
            seed = (args.seed + 1_000_003 * step + 7919 * number) % 2**31
            batch_loss = add_gradients(devices.as_tensors(batch), float(targets), loss_scale.value, seed)
            loss += float(by_device(batch_loss)[0])
        grad_norm = float(by_device(update(learning_rate, loss_scale.value))[0])
        loss_scale.update(np.isfinite(grad_norm))
        return loss, grad_norm, int(tokens)

    def evaluate(split, prefix):
        began, outcomes = time.perf_counter(), []
        for rows in batching.evaluation_batches(data.lengths(tokenized[split]), args, replicas):
            stop.check(devices.over_processes(strategy, stop.number))
            batch = devices.as_tensors(to_batch(tokenized[split][rows]))
            of_batch, loss, targets = batch.pop("labels", None), 0.0, 0
            logits = devices.gather(strategy, logits_step(batch))
            if of_batch is not None:
                loss = float(target_loss(tf.constant(logits), of_batch))
                targets = int((of_batch.numpy() != -100).sum())
            outcomes.append((rows.tolist(), loss, targets, logits))
        values, logits = results.combine(outcomes, prefix, time.perf_counter() - began)
        answers = predict(np.array(logits), labels.problem_type)
        if references := labels.of(raw[split]):
            values |= results.prefixed(prefix, score(answers[0], references, metric_names))
        return values, answers

    def save(folder):
        conversion.save(model, folder)
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
        steps = batching.step_batches(tokenized["train"], to_batch, args, start=state.step, devices=replicas)
        progress = Progress(plan, args, state, quiet=process > 0)
        with stop.after(save_checkpoint):
            while not state.ended(plan, args):
                is_best = False
                if state.evaluation_due(plan):
                    values, _ = evaluate("validation", "eval")
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
