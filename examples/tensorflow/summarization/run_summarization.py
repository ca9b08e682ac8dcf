# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]", "rouge-score>=0.1.2,<0.2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a sequence-to-sequence model for summarization in TensorFlow: KerasHub, the loop written out.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

import math
from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "tensorflow", "keras_hub", "rouge_score")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
from triptych.tensorflow.arguments import TrainingArguments
from triptych.run.evaluation import Evaluation

TASK = "summarization"
TARGETS = ("labels",)  # arrays of a batch that the loss is summed over


@dataclass
class SummarizationArguments(arguments.Seq2SeqArguments):
    """Summarization"""

    text_column: str | None = flag(None, "column of the texts (default: known, or found by its name)")
    summary_column: str | None = flag(None, "column of the summaries, likewise")
    lang: str | None = flag(None, "language code of texts and summaries, for multilingual models")

    predicted_roles = ("summary",)
    scores = ("rouge1", "rouge2", "rougeL", "rougeLsum", "gen_len")

    def wanted_columns(self) -> dict[str, str | None]:
        return {"text": self.text_column, "summary": self.summary_column}


ARGUMENTS = (arguments.ModelArguments, SummarizationArguments, TrainingArguments)
if __name__ == "__main__":
    # Before the slow imports, so that -h and wrong input are answered at once
    parsed = command_line.parse(*ARGUMENTS, description=__doc__)

import tensorflow as tf

from triptych.tensorflow import devices, models, optimization, saving
from triptych.tensorflow.generation import generate


def preprocess(rows, columns, tokenizer, data_args):
    """Token ids of texts and summaries; prediction needs no summaries."""
    texts = [data_args.source_prefix + text for text in rows[columns["text"]]]
    features = tokenizer(texts, max_length=data_args.max_source_length, truncation=True)
    features = {"input_ids": features["input_ids"]}
    if columns.get("summary") in rows:
        summaries, longest = rows[columns["summary"]], data_args.max_target_length
        labels = tokenizer(text_target=summaries, max_length=longest, truncation=True)
        features["labels"] = labels["input_ids"]
    return features


def collate(rows, draws, tokenizer, config, data_args):
    """One batch of padded arrays from features by row; the decoder reads the labels shifted to the right.

    Rows without a summary have one target that does not count. `draws` is for tasks that draw at random.
    """
    source_length = data_args.max_source_length if data_args.pad_to_max_length else None
    target_length = data_args.max_target_length if data_args.pad_to_max_length else None
    counts_padding = "labels" in rows and not data_args.ignore_pad_token_for_loss
    label_padding = tokenizer.pad_token_id if counts_padding else -100
    labels = rows.get("labels", [[-100]] * len(rows["input_ids"]))
    labels = batching.pad(labels, label_padding, target_length)
    before = np.where(labels == -100, tokenizer.pad_token_id, labels)[:, :-1]
    return {
        "input_ids": batching.pad(rows["input_ids"], tokenizer.pad_token_id, source_length),
        "attention_mask": batching.pad([[1] * len(ids) for ids in rows["input_ids"]], 0, source_length),
        "decoder_input_ids": np.insert(before, 0, config.decoder_start_token_id, axis=1),
        "labels": labels,
    }


def count_targets(batch):
    """How many targets the loss of a batch is summed over: tokens of the summaries."""
    return int((batch["labels"] != -100).sum())


def summed_loss(model, batch, label_smoothing=0.0, training=False, seed=None):
    """Cross-entropy summed over the target tokens, and no outputs: answers are generated."""
    logits, labels = model(batch, training=training, seed=seed), batch["labels"]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
    if label_smoothing:
        of_all_tokens = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * of_all_tokens
    return tf.reduce_sum(tf.where(labels != -100, losses, 0.0)), None


def answers(model, batch, outputs, search):
    """Generated token ids, int32 (rows, length)."""
    return generate(model, batch, search)


def score(answers, rows, columns, tokenizer):
    """ROUGE F-measures in percent, and the mean number of generated tokens; nothing without summaries."""
    if columns.get("summary") not in rows.column_names:
        return {}
    predictions = tokenizer.batch_decode(answers, skip_special_tokens=True)
    rouge = metrics.load("rouge").compute(predictions=predictions, references=rows[columns["summary"]])
    lengths = decoding.lengths(answers, tokenizer)
    return {**{name: 100 * value for name, value in rouge.items()}, "gen_len": float(np.mean(lengths))}


def write_answers(output_dir, prefix, values, answers, rows, tokenizer):
    """The metrics, and of a prediction a line for each row of the file, empty where its text is."""
    results.save_metrics(output_dir, prefix, values)
    if prefix.startswith("predict"):
        predictions = tokenizer.batch_decode(answers, skip_special_tokens=True)
        results.save_predictions(output_dir, data.by_source(predictions, rows))


def main(model_args, data_args, args):
    # ---------------------------------------------------------------------------------------------- Arguments
    world = devices.start(args)
    repository = hub.require_repository(args)

    # --------------------------------------------------------------------------------------------------- Data
    raw, columns = data.load(data_args, args)

    # -------------------------------------------------------------------------------------------------- Model
    tokenizer = tokenizers.load(model_args)
    config = configs.load(model_args, data_args, tokenizer)
    generation_config, search = decoding.of_run(model_args, data_args, config, tokenizer)
    model = models.load(model_args, data_args, args, config, "ForConditionalGeneration", world)
    loss_unit = "nats per token"

    # ------------------------------------------------------------------------------------------------- Inputs
    to_features = partial(preprocess, columns=columns, tokenizer=tokenizer, data_args=data_args)
    features = data.features(raw, to_features, columns, data_args)

    # ------------------------------------------------------------------------------------------------ Batches
    to_batch = partial(collate, tokenizer=tokenizer, config=config, data_args=data_args)
    to_answers = partial(answers, search=search)
    to_scores = partial(score, columns=columns, tokenizer=tokenizer)
    to_files = partial(write_answers, tokenizer=tokenizer)
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
