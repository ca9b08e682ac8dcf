# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]", "jinja2>=3.1.2,<4"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Train a model that finds hidden tokens in TensorFlow: KerasHub, the loop written out.

    python run_mlm.py --model_name_or_path answerdotai/ModernBERT-base --train_file "docs/**/*.md" \\
        --validation_split_percentage 5 --do_train --do_eval --output_dir out

The output folder then holds the model, `eval_results.json` with loss, perplexity and accuracy, and
`training_curve.png`. `--do_predict` writes the five likeliest tokens for each mask token of `--test_file` to
`predictions.tsv`.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub")  # before imports that may fail

from triptych import arguments, batching, command_line, data, hub, run
from triptych.arguments import flag
from triptych.data import masking
from triptych.metrics import fillings
from triptych.models import configs, encoders, tokenizers
from triptych.output import results
from triptych.tensorflow.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "fill-mask"
TARGETS = ("labels", "places")  # arrays of a batch that count for nothing where they are -100


@dataclass
class MaskedLanguageModelingArguments(arguments.MaskingArguments):
    """Masked language modeling"""

    pad_to_max_length: bool = flag(False, "pad batches to whole sequences instead of their longest rows")


ARGUMENTS = (arguments.ModelArguments, MaskedLanguageModelingArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import numpy as np
import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving


def preprocess(rows, columns, tokenizer, data_args):
    """Texts of tokens, and where words begin."""
    return masking.tokenized(rows, columns, tokenizer, data_args)


def collate(rows, draws, tokenizer, vocabulary, config, longest, data_args):
    """One batch of padded int64 arrays from features by row: what the model reads, (rows, length), with
    hidden tokens; and of these `places` and `labels`, (rows, hidden), -100 where there are no more. Rows to
    predict have `given`, (rows,): 1 where a row's own mask tokens are to be filled, of which no label is
    known. `draws` decides what is hidden, anew in each epoch.
    """
    length = longest if data_args.pad_to_max_length else None
    batch = encoders.inputs(rows, tokenizer, config, length)
    masked = masking.mask(batch["input_ids"], rows, draws, vocabulary, data_args)
    given = {masking.GIVEN: np.array(rows[masking.GIVEN])} if masking.GIVEN in rows else {}
    return batch | masked._asdict() | given


def count_targets(batch):
    """How many targets the loss of a batch is summed over: hidden tokens."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Cross-entropy summed over the hidden tokens; for `answers` that of each, and the logits (rows, hidden,
    vocabulary): the head is computed there alone."""
    logits, labels = model(batch, training=training, seed=seed), batch["labels"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    of_all_tokens = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
    losses = (1 - label_smoothing) * losses + label_smoothing * of_all_tokens
    losses = tf.where(labels != -100, losses, 0.0)
    return tf.reduce_sum(losses), (losses, logits)


def answers(model, batch, outputs):
    """For each row (hidden, 4): place, label, nats, whether the label was the likeliest; of rows to predict
    behind these the likeliest tokens, and their probabilities."""
    (losses, logits), labels = outputs, batch["labels"]
    is_right = tf.argmax(logits, axis=-1, output_type=labels.dtype) == labels
    columns = batch["places"], labels, losses, is_right
    found = tf.stack([tf.cast(column, "float32") for column in columns], axis=2)
    if masking.GIVEN in batch:
        best = tf.math.top_k(tf.nn.softmax(logits), min(fillings.BEST, logits.shape[-1]))
        found = tf.concat([found, tf.cast(best.indices, "float32"), best.values], axis=2)
    return found


def score(answers, rows):
    """Perplexity and accuracy."""
    return fillings.score(answers)


def write_answers(output_dir, prefix, values, answers, rows, tokenizer):
    """The metrics, and of a prediction the likeliest tokens for each place."""
    results.save_metrics(output_dir, prefix, values)
    if prefix.startswith("predict"):
        results.save_table(output_dir, fillings.table(answers, rows, tokenizer), "predictions.tsv")


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args, words=bool(data_args.words_column))
    config = configs.load(model_args, data_args, tokenizer)
    longest = masking.max_length(config, data_args)
    model = models.load(model_args, data_args, args, config, "ForMaskedLM", world)
    loss_unit = "nats per masked token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    texts = data.features(raw, to_features, columns, data_args)
    features = masking.sequences(texts, tokenizer, longest, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    given = {"tokenizer": tokenizer, "vocabulary": masking.vocabulary(tokenizer), "data_args": data_args}
    to_batch = partial(collate, config=config, longest=longest, **given)
    to_answers, to_scores = answers, score
    to_files = partial(write_answers, tokenizer=tokenizer)
    size = models.count_parameters(model)
    training = run.start(model_args, data_args, args, raw, features, world, size, repository)

    # -------------------------------------------------------------------------------------------------- Steps
    with world.strategy.scope():
        optimizer = optimization.optimizer(model, args)
        sums = devices.zeros_like(model.trainable_variables)
    loss_scale = optimization.LossScale(args.fp16, training.state)
    save_checkpoint = partial(saving.save_checkpoint, training, model, None, optimizer, tokenizer)
    save_result = partial(saving.save_result, training, model, None, tokenizer)

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
