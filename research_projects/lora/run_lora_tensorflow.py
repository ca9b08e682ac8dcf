"""Fine-tunes a BERT by low-rank corrections of its linear layers (LoRA) in TensorFlow.

    python run_lora_tensorflow.py --output_dir out

Instead of a weight W, W + scale · up · down is used (Hu et al. 2021, section 4.1); only `up`, `down` and the new
head are trained. `--method full` trains everything, `--method head` the head alone. The folder written is a
checkpoint with the corrections added to the weights, which opens like any other.
"""

import os
import time

import docstrings

if __name__ == "__main__":
    args = docstrings.parse(__doc__)  # before the slow imports

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf


class Linear(tf.Module):
    """A linear layer, which stays as it is unless all is trained, and its correction of low rank, if it has one.

    Args:
        name: of the layer, as Hugging Face calls it.
        tables: weights and corrections by names; see `docstrings.weights`.
    """

    def __init__(self, name: str, tables: dict[str, np.ndarray], args) -> None:
        super().__init__()
        self.weight, self.bias = (variable(f"{name}.{part}", tables, args) for part in ("weight", "bias"))
        self.scale, self.is_corrected = args.scale, f"{name}.down" in tables
        if self.is_corrected:
            self.down, self.up = (variable(f"{name}.{part}", tables, args) for part in ("down", "up"))

    def __call__(self, given: tf.Tensor) -> tf.Tensor:
        result = times(given, self.weight) + self.bias
        if self.is_corrected:
            result += self.scale * times(times(given, self.down), self.up)
        return result


class Norm(tf.Module):
    def __init__(self, name: str, tables: dict[str, np.ndarray], args, epsilon: float) -> None:
        super().__init__()
        self.weight, self.bias = (variable(f"{name}.{part}", tables, args) for part in ("weight", "bias"))
        self.epsilon = epsilon

    def __call__(self, given: tf.Tensor) -> tf.Tensor:
        mean, spread = tf.nn.moments(given, axes=-1, keepdims=True)
        return (given - mean) / tf.sqrt(spread + self.epsilon) * self.weight + self.bias


class Block(tf.Module):
    def __init__(self, name: str, tables: dict[str, np.ndarray], args, config: dict) -> None:
        super().__init__()
        self.heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        layers = (Linear(f"{name}.{layer}", tables, args) for layer in docstrings.LINEAR)
        self.query, self.key, self.value, self.attended, self.wider, self.narrower = layers
        self.first = Norm(f"{name}.attention.output.LayerNorm", tables, args, epsilon)
        self.second = Norm(f"{name}.output.LayerNorm", tables, args, epsilon)

    def __call__(self, states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        rows, length, width = tf.shape(states)[0], states.shape[1], states.shape[2]
        parts = (layer(states) for layer in (self.query, self.key, self.value))
        shape = (rows, length, self.heads, width // self.heads)
        query, key, value = (tf.transpose(tf.reshape(part, shape), (0, 2, 1, 3)) for part in parts)
        scores = (
            tf.matmul(query, key, transpose_b=True) / np.sqrt(width // self.heads).astype("float32") + mask
        )
        mixed = tf.transpose(tf.nn.softmax(scores) @ value, (0, 2, 1, 3))
        states = self.first(states + self.attended(tf.reshape(mixed, (rows, length, width))))
        return self.second(states + self.narrower(tf.nn.gelu(self.wider(states))))


class Classifier(tf.Module):
    """A BERT with a head, of weights by Hugging Face's names: int[rows, length] twice to float32[rows, labels]."""

    def __init__(self, tables: dict[str, np.ndarray], args) -> None:
        super().__init__()
        config = docstrings.configuration(args)
        table = "bert.embeddings.{}_embeddings.weight"
        names = ("word", "position", "token_type")
        self.words, self.places, self.types = (variable(table.format(name), tables, args) for name in names)
        self.norm = Norm("bert.embeddings.LayerNorm", tables, args, config["layer_norm_eps"])
        names = [f"bert.encoder.layer.{number}" for number in range(config["num_hidden_layers"])]
        self.blocks = [Block(name, tables, args, config) for name in names]
        self.pooler = Linear("bert.pooler.dense", tables, args)
        self.classifier = Linear("classifier", tables, args)

    def __call__(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        places = self.places[: input_ids.shape[1]]
        states = self.norm(tf.gather(self.words, input_ids) + places + self.types[0])
        mask = tf.where(attention_mask[:, None, None] > 0, 0.0, -1e30)
        for block in self.blocks:
            states = block(states, mask)
        return self.classifier(tf.tanh(self.pooler(states[:, 0])))

    @tf.function
    def logits(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return self(batch["input_ids"], batch["attention_mask"])


class Adam(tf.Module):
    """The update of torch.optim.AdamW without decay; Keras adds epsilon at another place."""

    def __init__(self, trained: list[tf.Variable]) -> None:
        super().__init__()
        self.trained, self.step = trained, tf.Variable(0.0)
        self.means, self.squares = ([tf.Variable(tf.zeros_like(one)) for one in trained] for _ in range(2))

    def update(self, gradients: list[tf.Tensor], rate: tf.Tensor) -> None:
        self.step.assign_add(1.0)
        tables = (self.trained, gradients, self.means, self.squares)
        for variable, gradient, mean, square in zip(*tables, strict=True):
            gradient = tf.convert_to_tensor(gradient)  # of a table of which few rows were read
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.999 * square + 0.001 * gradient**2)
            spread = tf.sqrt(square / (1 - 0.999**self.step)) + 1e-8
            variable.assign_sub(rate * mean / (1 - 0.9**self.step) / spread)


def times(given: tf.Tensor, weight: tf.Variable) -> tf.Tensor:
    return tf.tensordot(given, weight, ((-1,), (1,)))


def variable(name: str, tables: dict[str, np.ndarray], args) -> tf.Variable:
    return tf.Variable(tables[name], docstrings.is_trained(name, args.method), name=name)


def tensors_of(model: tf.Module, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The variables by the names that they were made with."""
    by_name = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    return {name: by_name[name] for name in like}


def evaluate(model: Classifier, features: dict[str, np.ndarray]) -> np.ndarray:
    pieces = (
        {name: tf.constant(array) for name, array in one.items()} for one in docstrings.pieces(features)
    )
    return np.concatenate([model.logits(piece).numpy() for piece in pieces])


def main(args) -> None:
    train, validation = docstrings.rows(args.train_rows)
    features, held_out = docstrings.encode(train, args), docstrings.encode(validation, args)
    found, corrections = docstrings.weights(args)
    model = Classifier(found | corrections, args)
    optimizer = Adam(list(model.trainable_variables))

    @tf.function
    def train_step(batch: dict[str, tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(batch["input_ids"], batch["attention_mask"])
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["labels"], logits)
            loss = tf.reduce_mean(losses)
        optimizer.update(tape.gradient(loss, optimizer.trained), rate)
        return loss

    losses, began = [], time.process_time()
    for step, batch in enumerate(docstrings.batches(features, args)):
        placed = {name: tf.constant(array) for name, array in batch.items()}
        losses.append(float(train_step(placed, tf.constant(docstrings.learning_rate(step, args)))))
    seconds = time.process_time() - began

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
