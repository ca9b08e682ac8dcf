"""Fine-tuning T5 for summarization the plain way of JAX: flax.nnx and optax, rows padded to the maximum
length. Compared with our scripts; when things happen is noted by `marks`.

    python plain_flax.py --model FOLDER --train train.jsonl --validation validation.jsonl \\
        --train_rows 1000 --eval_rows 100 --epochs 2 --output_dir out
"""

import argparse
import json
from itertools import islice

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from marks import note
from transformers import AutoConfig, AutoTokenizer

from triptych import metrics
from triptych.flax import conversion
from triptych.flax.generation import generate
from triptych.models import decoding

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
for name in ("--model", "--train", "--validation", "--output_dir"):
    parser.add_argument(name, required=True)
for name in ("--train_rows", "--eval_rows", "--epochs"):
    parser.add_argument(name, type=int, required=True)
parser.add_argument("--evaluations", type=int, default=1, help="from the second on all is compiled")
parser.add_argument("--batch_size", type=int, default=8)
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--max_source_length", type=int, default=512)
parser.add_argument("--max_target_length", type=int, default=32)


def token_losses(model, rngs, batch):
    """The cross-entropy of every target token, 0 at padding."""
    logits = model(batch["input_ids"], batch["attention_mask"], batch["decoder_input_ids"], rngs=rngs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(batch["labels"], 0))
    return jnp.where(batch["labels"] != -100, losses, 0)


def loss_fn(model, rngs, batch):
    return token_losses(model, rngs, batch).sum() / (batch["labels"] != -100).sum()


@nnx.jit
def train_step(model, optimizer, rngs, batch):
    loss, grads = nnx.value_and_grad(loss_fn)(model, rngs, batch)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def loss_step(model, batch):
    return token_losses(model, None, batch).sum()


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
        start = np.full((len(rows), 1), config.decoder_start_token_id)
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "decoder_input_ids": np.concatenate([start, target["input_ids"][:, :-1]], axis=1),
            "labels": np.where(target["attention_mask"] == 1, target["input_ids"], -100),
        }

    train, validation = read(args.train, args.train_rows), read(args.validation, args.eval_rows)
    train_set, validation_set = tokenize(train), tokenize(validation)

    # Training. What is left of an epoch after its last full batch is dropped.
    steps_per_epoch = len(train) // args.batch_size
    schedule = optax.linear_schedule(args.learning_rate, 0.0, args.epochs * steps_per_epoch)
    transformation = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    optimizer = nnx.Optimizer(model, transformation, wrt=nnx.Param)
    order, rngs = np.random.default_rng(0), nnx.Rngs(0)
    note("first batch")
    for epoch in range(args.epochs):
        rows = order.permutation(len(train))[: steps_per_epoch * args.batch_size]
        total = 0.0
        for batch in rows.reshape(steps_per_epoch, args.batch_size):
            total += float(train_step(model, optimizer, rngs, {k: v[batch] for k, v in train_set.items()}))
            note("step")
        print(f"epoch {epoch + 1}: loss {total / steps_per_epoch:.4f}", flush=True)

    note("save begins")
    conversion.save(model, config, args.output_dir)
    tokenizer.save_pretrained(args.output_dir)
    note("save ends")

    # Evaluation. The last batch is filled up with empty rows, or it would be compiled once more.
    greedy = decoding.search_of(
        decoding.generation_config(args.model, config), num_beams=1, max_length=args.max_target_length
    )

    @nnx.jit
    def generate_step(model, batch):
        return generate(model, batch, greedy)

    filling = {"input_ids": 0, "attention_mask": 0, "decoder_input_ids": 0, "labels": -100}
    missing = -len(validation) % args.batch_size
    filled = {
        name: np.pad(array, ((0, missing), (0, 0)), constant_values=filling[name])
        for name, array in validation_set.items()
    }
    for _ in range(args.evaluations):
        note("evaluation begins")
        loss, predictions = 0.0, []
        for start in range(0, len(validation), args.batch_size):
            batch = {name: array[start : start + args.batch_size] for name, array in filled.items()}
            loss += float(loss_step(model, batch))
            ids = np.asarray(generate_step(model, batch))
            predictions += tokenizer.batch_decode(ids, skip_special_tokens=True)
        loss /= int((validation_set["labels"] != -100).sum())
        note("evaluation ends", loss=loss)
    predictions = predictions[: len(validation)]
    references = [row["summary"] for row in validation]
    rouge = metrics.load("rouge").compute(predictions=predictions, references=references)
    print(json.dumps({"eval_loss": loss, **rouge}))


if __name__ == "__main__":
    main()
