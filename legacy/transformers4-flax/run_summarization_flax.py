"""Fine-tunes a model that summarizes, with the Flax classes of transformers 4.57.6: T5, BART and their kind.

    python run_summarization_flax.py --model_name_or_path folder --train_file train.jsonl \
        --validation_file validation.jsonl --output_dir out

The files hold `text` and `summary`. The output folder gets flax_model.msgpack, configuration, tokenizer and
eval_results.json. See README.md: folders of this machine alone, and only such as you trust.
"""

import argparse

import local_folders  # first: it keeps the library from the hub

WEIGHTS = ("flax_model.msgpack",)
if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source_prefix", default="", help="before each text, such as 'summarize: '")
    parser.add_argument("--max_source_length", type=int, default=256, help="tokens of a text (%(default)s)")
    parser.add_argument("--max_target_length", type=int, default=40, help="tokens of a summary (%(default)s)")
    args, train_rows, validation_rows = local_folders.parse(parser, WEIGHTS, ("text", "summary"))

import jax
import numpy as np
import optax
from flax.training.common_utils import onehot
from flax.training.train_state import TrainState
from transformers import AutoConfig, AutoTokenizer, FlaxAutoModelForSeq2SeqLM


def to_features(rows, tokenizer, args, config, shift_tokens_right):
    """Arrays of all rows, each of one length, so that the step is compiled once."""
    options = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
    texts = [args.source_prefix + row["text"] for row in rows]
    inputs = tokenizer(texts, max_length=args.max_source_length, **options)
    summaries = [row["summary"] for row in rows]
    labels = tokenizer(text_target=summaries, max_length=args.max_target_length, **options)
    return {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "decoder_input_ids": np.asarray(
            shift_tokens_right(labels["input_ids"], config.pad_token_id, config.decoder_start_token_id)
        ),
        "decoder_attention_mask": labels["attention_mask"],
        "labels": labels["input_ids"],
    }


def batches(features, size, steps, seed):
    generator, order = np.random.default_rng(seed), np.zeros(0, int)
    for _ in range(steps):
        while len(order) < size:
            order = np.concatenate([order, generator.permutation(len(features["labels"]))])
        yield {name: array[order[:size]] for name, array in features.items()}
        order = order[size:]


def summed_loss(logits, labels, mask):
    """Cross-entropy summed over the tokens of the summaries."""
    return (optax.softmax_cross_entropy(logits, onehot(labels, logits.shape[-1])) * mask).sum()


def main(args, train_rows, validation_rows):
    config = AutoConfig.from_pretrained(args.model_name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    if local_folders.has_weights(args.model_name_or_path, WEIGHTS):
        model = FlaxAutoModelForSeq2SeqLM.from_pretrained(
            args.model_name_or_path, config=config, seed=args.seed
        )
    else:
        model = FlaxAutoModelForSeq2SeqLM.from_config(config, seed=args.seed)
    module = __import__(model.__module__, fromlist=["shift_tokens_right"])  # each kind of model has its own

    def features_of(rows):
        return to_features(rows, tokenizer, args, config, module.shift_tokens_right)

    rates = optax.linear_schedule(args.learning_rate, 0.0, args.max_steps)
    state = TrainState.create(apply_fn=model.__call__, params=model.params, tx=optax.adamw(rates))

    @jax.jit
    def train_step(state, batch, dropout):
        labels, mask = batch.pop("labels"), batch["decoder_attention_mask"]

        def mean_loss(params):
            logits = state.apply_fn(**batch, params=params, dropout_rng=dropout, train=True).logits
            return summed_loss(logits, labels, mask) / mask.sum()

        loss, gradients = jax.value_and_grad(mean_loss)(state.params)
        return state.apply_gradients(grads=gradients), loss

    @jax.jit
    def evaluation_step(params, batch):
        labels, mask = batch.pop("labels"), batch["decoder_attention_mask"]
        return summed_loss(model(**batch, params=params, train=False).logits, labels, mask), mask.sum()

    results, losses = {}, []
    if train_rows:
        steps = batches(features_of(train_rows), args.per_device_train_batch_size, args.max_steps, args.seed)
        for step, batch in enumerate(steps):
            state, loss = train_step(state, batch, jax.random.fold_in(jax.random.key(args.seed), step))
            losses.append(float(loss))
        results["train_loss"] = float(np.mean(losses))
    if validation_rows:
        features, total, tokens = features_of(validation_rows), 0.0, 0
        for start in range(0, len(validation_rows), args.per_device_eval_batch_size):
            stop = start + args.per_device_eval_batch_size
            loss, number = evaluation_step(
                state.params, {k: array[start:stop] for k, array in features.items()}
            )
            total, tokens = total + float(loss), tokens + int(number)
        results["eval_loss"] = total / tokens

    args.output_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.output_dir, params=state.params)
    tokenizer.save_pretrained(args.output_dir)
    local_folders.save_results(args.output_dir, results, losses)


if __name__ == "__main__":
    main(args, train_rows, validation_rows)
