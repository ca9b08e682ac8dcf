# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[flax]", "rouge-score>=0.1.2,<0.2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""Fine-tune a sequence-to-sequence model for summarization in JAX: flax.nnx, optax, the loop written out.

    python run_summarization.py --model_name_or_path google-t5/t5-small \\
        --source_prefix "summarize: " --train_file train.jsonl --validation_file validation.jsonl \\
        --do_train --do_eval --predict_with_generate --output_dir out

The output folder then holds the model, `eval_results.json` with loss and ROUGE, and `training_curve.png`.
"""

from dataclasses import dataclass
from functools import partial

from triptych import require

require(">=0.2,<0.3", "jax", "flax", "optax", "rouge_score")  # before imports that may fail

import numpy as np

from triptych import arguments, batching, command_line, data, hub, metrics, run
from triptych.arguments import flag
from triptych.flax.arguments import TrainingArguments
from triptych.models import configs, decoding, tokenizers
from triptych.output import results
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

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax import devices, models, optimization, saving
from triptych.flax.generation import generate


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


def summed_loss(model, batch, label_smoothing=0.0, rngs=None):
    """Cross-entropy summed over the target tokens, and no outputs: answers are generated."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "decoder_input_ids")}
    logits, labels = model(**inputs, rngs=rngs), batch["labels"]
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)  # no place is, at -100
    of_labels = log_probabilities.sum(axis=-1, where=is_label)
    losses = (1 - label_smoothing) * of_labels + label_smoothing * log_probabilities.mean(axis=-1)
    return -jnp.where(labels != -100, losses, 0).sum(), None


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


def add_gradients(graphdef, label_smoothing, parameters, buffers, sums, batch, targets, dropout_key):
    """`sums` of the batches before, with this batch's part of the step's mean loss and its gradients."""

    def mean_loss(parameters):
        model = nnx.merge(graphdef, parameters, buffers)
        loss, _ = summed_loss(model, batch, label_smoothing, nnx.Rngs(dropout=dropout_key))
        return loss / targets

    return jax.tree.map(jnp.add, sums, jax.value_and_grad(mean_loss)(parameters))


def update(optimizer, max_grad_norm, parameters, optimizer_state, gradients, learning_rate):
    """New parameters and state of the optimizer, and the norm that the gradients had."""
    gradients, norm = optimization.clip_by_global_norm(gradients, max_grad_norm)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
    return jax.tree.map(lambda p, u: p - learning_rate * u, parameters, updates), optimizer_state, norm


def evaluation_step(graphdef, parameters, buffers, batch):
    """A batch's summed loss, and what `answers` reads."""
    return summed_loss(nnx.merge(graphdef, parameters, buffers), batch)


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
    model = models.load(model_args, data_args, args, config, "ForConditionalGeneration")
    graphdef, parameters, buffers = nnx.split(model, nnx.Param, ...)
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
    shapes = devices.Shapes(TARGETS, tokenizer.pad_token_id, config, args)
    optimizer = optimization.optimizer(args)
    parameters = devices.place_parameters(parameters, world, args.fsdp)
    optimizer_state = jax.jit(optimizer.init)(parameters)
    no_gradients = jax.jit(lambda parameters: (jnp.zeros(()), jax.tree.map(jnp.zeros_like, parameters)))
    add = partial(add_gradients, graphdef, args.label_smoothing_factor)
    add = jax.jit(add, donate_argnames="sums")
    change = partial(update, optimizer, args.max_grad_norm)
    change = jax.jit(change, donate_argnames=("parameters", "optimizer_state"))
    evaluate_batch = jax.jit(partial(evaluation_step, graphdef))

    def train_step(parameters, optimizer_state, batches, learning_rate, step):
        """One optimizer step. Its loss is a mean over the targets of all batches and processes."""
        counts = sum(map(count_targets, batches)), sum(map(batching.tokens, batches))
        targets, tokens = world.sum(counts)
        # Dropout is a function of (seed, step), so that no generator state need be saved.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(args.seed), step), len(batches))
        sums = no_gradients(parameters)
        for key, batch in zip(keys, batches, strict=True):
            placed = world.place(batch, args.per_device_train_batch_size, shapes)
            sums = add(parameters, buffers, sums, placed, training.divisor(targets), key)
        loss, gradients = sums
        parameters, optimizer_state, norm = change(parameters, optimizer_state, gradients, learning_rate)
        return parameters, optimizer_state, float(loss), float(norm), tokens

    def evaluate(split, prefix):
        """Metrics of all rows of a split, and an answer for each row in order."""
        model = nnx.merge(graphdef, parameters, buffers)
        evaluation = Evaluation(prefix, training)
        for rows, batch in evaluation.batches(features[split], to_batch, TARGETS):
            placed, found = world.place(batch, args.per_device_eval_batch_size, shapes), None
            loss, outputs = evaluate_batch(parameters, buffers, placed)
            if evaluation.wants_answers:
                found = world.own_rows(to_answers(model, placed, outputs), len(rows))
            # Each process has the loss of all rows.
            evaluation.add(rows, float(loss) / world.processes, count_targets(batch), found)
        return evaluation.result(to_scores, raw[split])

    def save_checkpoint():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_checkpoint(training, model, config, generation_config, optimizer_state, tokenizer)

    def save_result():
        model = nnx.merge(graphdef, parameters, buffers)
        saving.save_result(training, model, config, generation_config, tokenizer)

    # ------------------------------------------------------------------------- Train (the same in every task)
    all_metrics = {}
    if args.do_train:
        parameters, optimizer_state = saving.restore(training, parameters, optimizer_state)
        steps = training.steps(features["train"], to_batch, TARGETS)
        with training.stoppable(then=save_checkpoint) as bar, devices.announced_compilation(bar.status):
            while not training.ended():
                if not training.evaluation_due():  # else a signal has cut an evaluation short
                    learning_rate = training.learning_rate
                    parameters, optimizer_state, loss, grad_norm, tokens = train_step(
                        parameters, optimizer_state, next(steps), learning_rate, training.step
                    )
                    training.stepped(loss, learning_rate, grad_norm, tokens)
                is_best = False
                if training.evaluation_due():
                    values, _ = evaluate("validation", "eval")
                    is_best = training.evaluated(values)
                if training.saves(is_best):
                    save_checkpoint()
        parameters = saving.best(training, parameters)
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
