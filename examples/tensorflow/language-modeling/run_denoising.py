# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that restores corrupted texts in TensorFlow: the loop written out.

    python run_denoising.py --model_name_or_path google/t5-v1_1-small --train_file "texts/*.txt" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` corrupts each row of `--test_file`, and writes to `predictions.tsv` how
well it was restored; with `--max_new_tokens` it fills the holes of rows: `generated_predictions.txt`.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import corruption
from triptych.metrics import perplexity
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.run.evaluation import Evaluation
from triptych.tensorflow.arguments import TrainingArguments

TASK = "text2text-generation"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class DenoisingArguments(arguments.CorruptionArguments):
    """Denoising"""

    pad_to_max_length: bool = flag(False, "pad batches to the longest possible rows instead of their own")


ARGUMENTS = (arguments.ModelArguments, DenoisingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving
from triptych.tensorflow.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Texts as tokens, and where their sentences begin."""
    return corruption.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, config, noise, data_args):
    """One batch of padded arrays from features by row, corrupted as `draws` say; the decoder reads the labels
    shifted to the right. Rows with holes to be filled have one target that does not count, and the decoder's
    start.
    """
    input_length = noise.input_length if data_args.pad_to_max_length else None
    target_length = noise.target_length if data_args.pad_to_max_length else None
    if is_corrupted := corruption.STARTS in rows:
        texts, labels = corruption.corrupted(rows, draws, noise)
    else:
        texts, labels = rows["input_ids"], [[-100]] * len(rows["input_ids"])
    labels = batching.pad(labels, -100, target_length)
    before = np.where(labels == -100, tokenizer.pad_token_id, labels)[:, :-1]
    batch = {
        "input_ids": batching.pad(texts, tokenizer.pad_token_id, input_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in texts], 0, input_length),
        "decoder_input_ids": np.insert(before, 0, config.decoder_start_token_id, axis=1),
        "labels": labels,
    }
    start = np.full(len(texts), config.decoder_start_token_id)
    return batch if is_corrupted else batch | {decoding.START: start}


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens to be written."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Cross-entropy summed over the target tokens; for `answers` that of each and the likeliest tokens."""
    logits, labels = model(batch, training=training, seed=seed), batch["labels"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    if label_smoothing:
        of_all_tokens = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * of_all_tokens
    losses = tf.where(labels != -100, losses, 0.0)
    return tf.reduce_sum(losses), (losses, tf.argmax(logits, axis=-1, output_type=labels.dtype))


def answers(model, batch, outputs, search):
    """For each row (3): nats, how many tokens were the likeliest, and how many there were to be written; for
    rows with holes generated token ids."""
    if decoding.START in batch:
        return generate(model, batch, search)
    (losses, likeliest), labels = outputs, batch["labels"]
    columns = losses, likeliest == labels, labels != -100
    return tf.stack([tf.reduce_sum(tf.cast(column, tf.float32), axis=1) for column in columns], axis=1)


def score(answers, rows, data_args):
    """Perplexity and accuracy; nothing of filled holes."""
    return {} if data_args.fills(rows) else perplexity.score(answers, rows)


def write_answers(output_dir, prefix, values, answers, rows, columns, tokenizer, noise, data_args):
    """The metrics; of a prediction how well each row of the file was restored, or the row with its holes
    filled."""
    results.save_metrics(output_dir, prefix, values)
    if data_args.fills(rows):
        texts = corruption.filled(answers, rows[columns["text"]], tokenizer, noise)
        results.save_predictions(output_dir, data.by_source(texts, rows))
    elif prefix.startswith("predict"):
        results.save_table(output_dir, perplexity.table(answers, rows, decimals=7), "predictions.tsv")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, offsets=data_args.permutes())
    config = configs.load(model_args, data_args, tokenizer)
    noise = corruption.of_run(config, tokenizer, data_args)
    generation_config, search = decoding.of_run(model_args, data_args, config, tokenizer)
    model = models.load(model_args, data_args, args, config, "ForConditionalGeneration", world)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    whole = data.features(raw, to_features, columns, data_args)
    features = corruption.blocks(whole, noise, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, noise=noise, data_args=data_args)
    to_answers = partial(answers, search=search)
    to_scores = partial(score, data_args=data_args)
    to_files = partial(write_answers, columns=columns, tokenizer=tokenizer, noise=noise, data_args=data_args)
    size = models.count_parameters(model)
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # -------------------------------------------------------------------------------------------------- Steps
    with world.strategy.scope():
        optimizer = optimization.optimizer(model, args)
        sums = devices.zeros_like(model.trainable_variables)
    loss_scale = optimization.LossScale(args.fp16, training.state)
    save_checkpoint = partial(
        saving.save_checkpoint, training, model, generation_config, optimizer, tokenizer
    )
    save_result = partial(saving.save_result, training, model, generation_config, tokenizer)

    @world.program
    def add_gradients(batch, targets, scale, seed):
        """A batch's part of the step's mean loss; its gradients are added to those of the batches before."""
        dropout = {"training": True, "seed": devices.own_seed(seed)}
        with tf.GradientTape() as tape:
            loss, _ = summed_loss(model, batch, args.label_smoothing_factor, **dropout)
            loss = loss / targets
            scaled_loss = loss * scale
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        for total, gradient in zip(sums, gradients, strict=True):
            total.assign_add(gradient)
        return devices.sum_over_devices(loss)

    @world.program
    def update(learning_rate, scale):
        """Changes the variables by the added gradients, and returns the norm that these had."""
        gradients = devices.sum_over_devices([total / scale for total in sums])
        gradients, norm = optimization.clip_by_global_norm(gradients, args.max_grad_norm)
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(gradients, model.trainable_variables)
        for total in sums:
            total.assign(tf.zeros_like(total))
        return norm

    @world.program
    def evaluation_step(batch, wants_answers):
        """A batch's summed loss, and an answer for each row if wanted."""
        loss, outputs = summed_loss(model, batch)
        found = to_answers(model, batch, outputs) if wants_answers else ()
        return devices.sum_over_devices(loss), found

    def train_step(batches, learning_rate, step):
        """One optimizer step. Its loss is a mean over the targets of all batches and devices."""
        targets, tokens = sum(map(count_targets, batches)), sum(map(batching.tokens, batches))
        loss = 0.0
        for number, batch in enumerate(batches):
            # Dropout is a function of (seed, step, batch), so that no generator state need be saved.
            seed = (args.seed + 1_000_003 * step + 7919 * number) % 2**31
            loss += add_gradients(batch, float(training.divisor(targets)), loss_scale.value, seed)
        grad_norm = update(learning_rate, loss_scale.value)
        loss_scale.update(math.isfinite(grad_norm))
        return loss, grad_norm, tokens

    def evaluate(split, prefix):
        """Metrics of all rows of a split, and an answer for each row in order."""
        evaluation = Evaluation(prefix, training)
        for rows, batch in evaluation.batches(features[split], to_batch, TARGETS):
            loss, found = evaluation_step(batch, evaluation.wants_answers)
            evaluation.add(rows, loss, count_targets(batch), world.gather(found))
        return evaluation.result(to_scores, raw[split], whole=True)

    # ------------------------------------------------------------------------- Train (the same in every task)
    all_metrics = {}
    if args.do_train:
        saving.restore(training, model, optimizer)
        steps = training.steps(features["train"], to_batch, TARGETS)
        with training.stoppable(then=save_checkpoint):
            while not training.ended():
                if not training.evaluation_due():  # else a signal has cut an evaluation short
                    learning_rate = training.learning_rate
                    loss, grad_norm, tokens = train_step(next(steps), learning_rate, training.step)
                    training.stepped(loss, learning_rate, grad_norm, tokens)
                is_best = False
                if training.evaluation_due():
                    values, _ = evaluate("validation", "eval")
                    is_best = training.evaluated(values)
                if training.saves(is_best):
                    save_checkpoint()
        save_result()
        all_metrics |= training.finish(loss_unit)

    # ---------------------------------------------------------------------- Evaluate (the same in every task)
    if args.do_eval:
        for split, prefix in data.parts(raw, "validation", "eval"):
            values, found = evaluate(split, prefix)
            all_metrics |= values
            to_files(args.output_dir, prefix, values, found, raw[split])

    # ----------------------------------------------------------------------- Predict (the same in every task)
    if args.do_predict:
        for split, prefix in data.parts(raw, "test", "predict"):
            values, found = evaluate(split, prefix)
            all_metrics |= values
            to_files(args.output_dir, prefix, values, found, raw[split])

    # ------------------------------------------------------------------------- Share (the same in every task)
    run.finish(model_args, data_args, TASK, all_metrics, training)


if __name__ == "__main__":
    run.main(main, *parsed)
