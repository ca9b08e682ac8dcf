"""Fine-tunes a BERT by low-rank corrections of its linear layers (LoRA) in JAX: flax.nnx, optax.

    python run_lora_flax.py --output_dir out

Instead of a weight W, W + scale · up · down is used (Hu et al. 2021, section 4.1); only `up`, `down` and the new
head are trained. `--method full` trains everything, `--method head` the head alone. The folder written is a
checkpoint with the corrections added to the weights, which opens like any other.
"""

import time

import docstrings

if __name__ == "__main__":
    args = docstrings.parse(__doc__)  # before the slow imports

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Trained(nnx.Param):
    """A parameter that is trained; other ones stay as they are."""


class Linear(nnx.Module):
    """A linear layer, which stays as it is unless all is trained, and its correction of low rank, if it has one.

    Args:
        name: of the layer, as Hugging Face calls it.
        tables: weights and corrections by names; see `docstrings.weights`.
    """

    def __init__(self, name: str, tables: dict[str, np.ndarray], args) -> None:
        self.weight, self.bias = (parameter(f"{name}.{part}", tables, args) for part in ("weight", "bias"))
        self.scale, self.is_corrected = args.scale, f"{name}.down" in tables
        if self.is_corrected:
            self.down, self.up = (parameter(f"{name}.{part}", tables, args) for part in ("down", "up"))

    def __call__(self, given: jax.Array) -> jax.Array:
        result = given @ self.weight[...].T + self.bias[...]
        if self.is_corrected:
            result += self.scale * (given @ self.down[...].T @ self.up[...].T)
        return result


class Norm(nnx.Module):
    def __init__(self, name: str, tables: dict[str, np.ndarray], args, epsilon: float) -> None:
        self.weight, self.bias = (parameter(f"{name}.{part}", tables, args) for part in ("weight", "bias"))
        self.epsilon = epsilon

    def __call__(self, given: jax.Array) -> jax.Array:
        centred = given - given.mean(axis=-1, keepdims=True)
        spread = jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return centred / spread * self.weight[...] + self.bias[...]


class Block(nnx.Module):
    def __init__(self, name: str, tables: dict[str, np.ndarray], args, config: dict) -> None:
        self.heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        layers = (Linear(f"{name}.{layer}", tables, args) for layer in docstrings.LINEAR)
        self.query, self.key, self.value, self.attended, self.wider, self.narrower = layers
        self.first = Norm(f"{name}.attention.output.LayerNorm", tables, args, epsilon)
        self.second = Norm(f"{name}.output.LayerNorm", tables, args, epsilon)

    def __call__(self, states: jax.Array, mask: jax.Array) -> jax.Array:
        rows, length, width = states.shape
        parts = (layer(states) for layer in (self.query, self.key, self.value))
        query, key, value = (part.reshape(rows, length, self.heads, -1).swapaxes(1, 2) for part in parts)
        scores = query @ key.swapaxes(2, 3) / np.sqrt(width // self.heads) + mask
        mixed = (jax.nn.softmax(scores) @ value).swapaxes(1, 2).reshape(rows, length, width)
        states = self.first(states + self.attended(mixed))
        return self.second(states + self.narrower(jax.nn.gelu(self.wider(states), approximate=False)))


class Classifier(nnx.Module):
    """A BERT with a head, of weights by Hugging Face's names: int[rows, length] twice to float32[rows, labels]."""

    def __init__(self, tables: dict[str, np.ndarray], args) -> None:
        config = docstrings.configuration(args)
        table = "bert.embeddings.{}_embeddings.weight"
        names = ("word", "position", "token_type")
        self.words, self.places, self.types = (parameter(table.format(name), tables, args) for name in names)
        self.norm = Norm("bert.embeddings.LayerNorm", tables, args, config["layer_norm_eps"])
        names = [f"bert.encoder.layer.{number}" for number in range(config["num_hidden_layers"])]
        self.blocks = nnx.List(Block(name, tables, args, config) for name in names)
        self.pooler = Linear("bert.pooler.dense", tables, args)
        self.classifier = Linear("classifier", tables, args)

    def __call__(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        places = self.places[...][: input_ids.shape[1]]
        states = self.norm(self.words[...][input_ids] + places + self.types[...][0])
        mask = jnp.where(attention_mask[:, None, None], 0.0, -1e30)
        for block in self.blocks:
            states = block(states, mask)
        return self.classifier(jnp.tanh(self.pooler(states[:, 0])))


def parameter(name: str, tables: dict[str, np.ndarray], args) -> nnx.Param:
    kind = Trained if docstrings.is_trained(name, args.method) else nnx.Param
    return kind(jnp.asarray(tables[name]), name=name)


def tensors_of(model: nnx.Module, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters by the names that they were made with."""
    variables = nnx.to_flat_state(nnx.state(model, nnx.Param))
    by_name = {variable.get_metadata("name"): np.asarray(variable[...]) for _, variable in variables}
    return {name: by_name[name] for name in like}


@jax.jit
def logits_of(model: nnx.Module, batch: dict[str, jax.Array]) -> jax.Array:
    return model(batch["input_ids"], batch["attention_mask"])


def evaluate(model: nnx.Module, features: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(logits_of(model, piece)) for piece in docstrings.pieces(features)])


def main(args) -> None:
    train, validation = docstrings.rows(args.train_rows)
    features, held_out = docstrings.encode(train, args), docstrings.encode(validation, args)
    found, corrections = docstrings.weights(args)
    graph, trained, fixed = nnx.split(Classifier(found | corrections, args), Trained, ...)
    optimizer = optax.adamw(lambda step: rates[step], weight_decay=0.0)
    rates = jnp.array([docstrings.learning_rate(step, args) for step in range(args.max_steps)])
    state = optimizer.init(trained)

    @jax.jit
    def train_step(trained, state, batch):
        def mean_loss(trained):
            logits = nnx.merge(graph, trained, fixed)(batch["input_ids"], batch["attention_mask"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(trained)
        updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, loss

    losses, began = [], time.process_time()
    for batch in docstrings.batches(features, args):
        trained, state, loss = train_step(trained, state, batch)
        losses.append(float(loss))
    seconds = time.process_time() - began

    model = nnx.merge(graph, trained, fixed)
    found, corrections = tensors_of(model, found), tensors_of(model, corrections)
    of_merged = logits = evaluate(model, held_out)
    if corrections:
        merged = Classifier(docstrings.merged(found, corrections, args.scale), args)
        of_merged = evaluate(merged, held_out)
    results = docstrings.score(logits, of_merged, held_out["labels"])
    docstrings.save(
        args, found, corrections, validation, results | {"losses": losses, "cpu_seconds": seconds}
    )


if __name__ == "__main__":
    main(args)
