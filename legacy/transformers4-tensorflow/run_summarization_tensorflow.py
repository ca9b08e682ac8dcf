"""Fine-tunes a model that summarizes, with the TensorFlow classes of transformers 4.57.6: T5, BART and their kind.

    python run_summarization_tensorflow.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --output_dir out

The files hold `text` and `summary`. The loop is written out. The output folder gets tf_model.h5, configuration,
tokenizer and eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse
import os

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("tf_model.h5",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source_prefix", default="", help="before each text, such as 'summarize: '")
    parser.add_argument("--max_source_length", type=int, default=256, help="tokens of a text (%(default)s)")
    parser.add_argument("--max_target_length", type=int, default=40, help="tokens of a summary (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text", "summary"))

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # these classes are of Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf
import tf_keras as keras
from transformers import AutoConfig, AutoTokenizer, TFAutoModelForSeq2SeqLM


def to_features(rows, tokenizer, args):
    """Arrays of all rows, each of one length, so that the step is traced once; targets that do not count are -100."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
    texts = [args.source_prefix + row["text"] for row in rows]
    inputs = tokenizer(texts, max_length=args.max_source_length, **options)
    summaries = [row["summary"] for row in rows]
    labels = tokenizer(text_target=summaries, max_length=args.max_target_length, **options)
    return {
        "input_ids": inputs["input_ids"].astype("int32"),
        "attention_mask": inputs["attention_mask"].astype("int32"),
        "labels": np.where(labels["attention_mask"], labels["input_ids"], -100).astype("int32"),
    }


def summed_loss(model, batch, training):
    """Cross-entropy summed over the tokens of the summaries, and their number."""
    logits = model(batch, training=training).logits
    counts = batch["labels"] != -100
    targets = tf.where(counts, batch["labels"], 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    counts = tf.cast(counts, losses.dtype)
    return tf.reduce_sum(losses * counts), tf.reduce_sum(counts)


def main(args, train_rows, validation_rows):
    keras.utils.set_random_seed(args.seed)
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        model = TFAutoModelForSeq2SeqLM.from_pretrained(args.model_name_or_path, config=config)
    else:
        model = TFAutoModelForSeq2SeqLM.from_config(config)
    rates = keras.optimizers.schedules.PolynomialDecay(args.learning_rate, args.max_steps, 0.0)
    optimizer = keras.optimizers.Adam(rates)

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            loss, tokens = summed_loss(model, batch, training=True)
            loss = loss / tokens
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    @tf.function(reduce_retracing=True)
    def evaluation_step(batch):
        return summed_loss(model, batch, training=False)

    results, losses = {}, []
    if train_rows:
        dataset = tf.data.Dataset.from_tensor_slices(to_features(train_rows, tokenizer, args))
        dataset = dataset.shuffle(len(train_rows), seed=args.seed).repeat()
        for batch in dataset.batch(args.per_device_train_batch_size).take(args.max_steps):
            losses.append(float(train_step(batch)))
        results["train_loss"] = float(np.mean(losses))
    if validation_rows:
        dataset, total, tokens = (
            tf.data.Dataset.from_tensor_slices(to_features(validation_rows, tokenizer, args)), 0.0, 0.0
        )  # fmt: skip
        for batch in dataset.batch(args.per_device_eval_batch_size):
            loss, number = evaluation_step(batch)
            total, tokens = total + float(loss), tokens + float(number)
        results["eval_loss"] = total / tokens

    args.output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    local_folders.save_results(args.output_dir, results, losses)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
