"""Fine-tunes a model that classifies texts, with the TensorFlow classes of transformers 4.57.6, by `compile` and `fit`.

    python run_classification_tensorflow.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --label_column_name topic --output_dir out

The files hold `text` and the label. The output folder gets tf_model.h5, configuration, tokenizer and
eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse
import os

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("tf_model.h5",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--label_column_name", default="label", help="(%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a text (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text",))

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # these classes are of Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf
import tf_keras as keras
from transformers import AutoConfig, AutoTokenizer, TFAutoModelForSequenceClassification


class Losses(keras.callbacks.Callback):
    """The loss of each step; Keras itself tells means."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def to_features(rows, tokenizer, args, config):
    """Arrays of all rows, each of one length, so that the step is traced once; and labels."""
    texts = [row["text"] for row in rows]
    options = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
    inputs = tokenizer(texts, max_length=args.max_seq_length, **options)
    labels = np.array([config.label2id[row[args.label_column_name]] for row in rows], "int32")
    return {name: inputs[name].astype("int32") for name in ("input_ids", "attention_mask")}, labels


def main(args, train_rows, validation_rows):
    keras.utils.set_random_seed(args.seed)
    config = local_folders.with_labels(AutoConfig, args, train_rows, validation_rows)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        model = TFAutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, config=config)
    else:
        model = TFAutoModelForSequenceClassification.from_config(config)
    rates = keras.optimizers.schedules.PolynomialDecay(args.learning_rate, args.max_steps, 0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rates), loss, metrics=["accuracy"])

    results, losses = {}, Losses()
    if train_rows:
        dataset = tf.data.Dataset.from_tensor_slices(to_features(train_rows, tokenizer, args, config))
        dataset = dataset.shuffle(len(train_rows), seed=args.seed).repeat()
        steps = {"steps_per_epoch": args.max_steps, "epochs": 1, "verbose": 0, "callbacks": [losses]}
        model.fit(dataset.batch(args.per_device_train_batch_size), **steps)
        results["train_loss"] = float(np.mean(losses.found))
    if validation_rows:
        dataset = tf.data.Dataset.from_tensor_slices(to_features(validation_rows, tokenizer, args, config))
        found = model.evaluate(dataset.batch(args.per_device_eval_batch_size), verbose=0, return_dict=True)
        results |= {f"eval_{name}": float(value) for name, value in found.items()}

    args.output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    local_folders.save_results(args.output_dir, results, losses.found)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
