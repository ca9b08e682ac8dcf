"""Fine-tunes a model that classifies texts, with the Flax classes of transformers 4.57.6: BERT, RoBERTa, DistilBERT.

    python run_classification_flax.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --label_column_name topic --output_dir out

The files hold `text` and the label. The output folder gets flax_model.msgpack, configuration, tokenizer and
eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("flax_model.msgpack",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--label_column_name", default="label", help="(%(default)s)")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a text (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text",))

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState
from transformers import AutoConfig, AutoTokenizer, FlaxAutoModelForSequenceClassification


def to_features(rows, tokenizer, args, config):
    """Arrays of all rows, each of one length, so that the step is compiled once."""
    texts = [row["text"] for row in rows]
    options = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
    inputs = tokenizer(texts, max_length=args.max_seq_length, **options)
    return {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "labels": np.array([config.label2id[row[args.label_column_name]] for row in rows]),
    }


def batches(features, size, steps, seed):
    generator, order = np.random.default_rng(seed), np.zeros(0, int)
    for _ in range(steps):
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(len(features["labels"]))])
        yield {name: array[order[:size]] for name, array in features.items()}
        order = order[size:]


def summed_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()


def main(args, train_rows, validation_rows):
    config = local_folders.with_labels(AutoConfig, args, train_rows, validation_rows)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        options = {"config": config, "seed": args.seed}
        model = FlaxAutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, **options)
    else:
        model = FlaxAutoModelForSequenceClassification.from_config(config, seed=args.seed)
    rates = optax.linear_schedule(args.learning_rate, 0.0, args.max_steps)
    state = TrainState.create(apply_fn=model.__call__, params=model.params, tx=optax.adamw(rates))

    @jax.jit
    def train_step(state, batch, dropout):
        labels = batch.pop("labels")

        def mean_loss(params):
            logits = state.apply_fn(**batch, params=params, dropout_rng=dropout, train=True).logits
            return summed_loss(logits, labels) / len(labels)

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        return state.apply_gradients(grads=gradients), loss

    @jax.jit
    def evaluation_step(params, batch):
        labels = batch.pop("labels")
        logits = model(**batch, params=params, train=False).logits
        return summed_loss(logits, labels), (jnp.argmax(logits, axis=-1) == labels).sum()

    results, losses = {}, []
    if train_rows:
        features = to_features(train_rows, tokenizer, args, config)
        steps = batches(features, args.per_device_train_batch_size, args.max_steps, args.seed)
        for step, batch in enumerate(steps):
            state, loss = train_step(state, batch, jax.random.fold_in(jax.random.key(args.seed), step))
            losses.append(float(loss))
        results["train_loss"] = float(np.mean(losses))
    if validation_rows:
        features, total, right = to_features(validation_rows, tokenizer, args, config), 0.0, 0
        for start in range(0, len(validation_rows), args.per_device_eval_batch_size):
            stop = start + args.per_device_eval_batch_size
            loss, number = evaluation_step(
                state.params, {k: array[start:stop] for k, array in features.items()}
            )
            total, right = total + float(loss), right + int(number)
        results |= {"eval_loss": total / len(validation_rows), "eval_accuracy": right / len(validation_rows)}

    args.output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.output_dir, params=state.params)
    tokenizer.save_pretrained(args.output_dir)
    local_folders.save_results(args.output_dir, results, losses)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
