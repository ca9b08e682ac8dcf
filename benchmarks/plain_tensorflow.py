"""Fine-tuning T5 for summarization the plain way of TensorFlow: Keras' compile and fit, rows padded to the
maximum length. Compared with our scripts; when things happen is noted by `marks`.

    python plain_tensorflow.py --model FOLDER --train train.jsonl --validation validation.jsonl \\
        --train_rows 1000 --eval_rows 100 --epochs 2 --output_dir out
"""

import argparse
import json
import math
from itertools import islice

import keras
import numpy as np
import tensorflow as tf
from marks import note
from transformers import AutoConfig, AutoTokenizer

from triptych import metrics
from triptych.models import decoding
from triptych.tensorflow import conversion
from triptych.tensorflow.generation import generate

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("--model", "--train", "--validation", "--output_dir"):
    parser.add_argument(name, required=True)
for name in ("--train_rows", "--eval_rows", "--epochs"):
    parser.add_argument(name, type=int, required=True)
parser.add_argument("--batch_size", type=int, default=8)
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--max_source_length", type=int, default=512)
parser.add_argument("--max_target_length", type=int, default=32)


class NoteSteps(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for the step
        note("step")


def main():
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    config = AutoConfig.from_pretrained(args.model)
    model = conversion.load(args.model, config)

    # Data
    def read(path, number):
        with open(path) as file:
            return [json.loads(line) for line in islice(file, number)]

    def tokenize(rows):
        padded = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
        texts, summaries = [row["text"] for row in rows], [row["summary"] for row in rows]
        tokens = tokenizer(texts, max_length=args.max_source_length, **padded)
        target = tokenizer(text_target=summaries, max_length=args.max_target_length, **padded)
        inputs = {
            "input_ids": tokens["input_ids"].astype(np.int32),
            "attention_mask": tokens["attention_mask"].astype(np.int32),
            "decoder_input_ids": np.insert(
                target["input_ids"][:, :-1], 0, config.decoder_start_token_id, axis=1
            ).astype(np.int32),
        }
        return inputs, np.where(target["attention_mask"] == 1, target["input_ids"], -100).astype(np.int32)

    train, validation = read(args.train, args.train_rows), read(args.validation, args.eval_rows)
    inputs, labels = tokenize(train)
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels))
    train_set = train_set.shuffle(len(train)).batch(args.batch_size).prefetch(tf.data.AUTOTUNE)
    validation_set = tf.data.Dataset.from_tensor_slices(tokenize(validation))
    validation_set = validation_set.batch(args.batch_size).prefetch(tf.data.AUTOTUNE)
    # More than a tutorial has: in TensorFlow 2.21 the end of an epoch sometimes waits, for half a minute
    # or more, until the thread that tunes the pipeline has slept out.
    options = tf.data.Options()
    options.autotune.enabled = False
    train_set, validation_set = train_set.with_options(options), validation_set.with_options(options)

    # Training. Keras chooses jit_compile itself: False on a CPU, True where there is a GPU.
    steps = args.epochs * math.ceil(len(train) / args.batch_size)
    schedule = keras.optimizers.schedules.PolynomialDecay(args.learning_rate, steps, end_learning_rate=0.0)
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100),
    )
    note("first batch")
    model.fit(train_set, epochs=args.epochs, callbacks=[NoteSteps()], verbose=2)

    note("save begins")
    conversion.save(model, args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    note("save ends")

    # Evaluation
    greedy = decoding.search_of(
        decoding.generation_config(args.model, config), num_beams=1, max_length=args.max_target_length
    )

    @tf.function(input_signature=validation_set.element_spec)
    def loss_step(inputs, labels):
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), model(inputs))
        return tf.reduce_sum(tf.where(labels != -100, losses, 0.0))

    @tf.function(input_signature=validation_set.element_spec[:1])
    def generate_step(inputs):
        return generate(model, inputs, greedy)

    note("evaluation begins")
    loss, tokens, predictions = 0.0, 0, []
    for inputs, labels in validation_set:
        loss += float(loss_step(inputs, labels))
        tokens += int((labels.numpy() != -100).sum())
        predictions += tokenizer.batch_decode(generate_step(inputs).numpy(), skip_special_tokens=True)
    loss /= tokens
    note("evaluation ends", loss=loss)
    references = [row["summary"] for row in validation]
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    print(json.dumps({"eval_loss": loss, **rouge}))


if __name__ == "__main__":
    main()
