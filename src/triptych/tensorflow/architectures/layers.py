"""What the models share: activations, the seeds of dropout, a layer's run, masks, attention."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.errors import InputError
from triptych.tensorflow import keras_private

# By transformers' names: its "gelu" is the exact one, "gelu_new" the approximation by tanh.
ACTIVATIONS = {
    "gelu": partial(keras.activations.gelu, approximate=False),
    "gelu_new": partial(keras.activations.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(keras.activations.gelu, approximate=True),
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


KeysValues = tuple[tf.Tensor, tf.Tensor]  # each [rows, heads, length, width of a head]


def activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function of that name; InputError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"The configuration asks for the activation {name!r}; there are: {known}.")
    return ACTIVATIONS[name]


class Seeds(keras.random.SeedGenerator):
    """The seed of each dropout, int32 [2]: a given number, and a count. It has no variable, so that dropout
    is a function of the step's seed, and a layer that is computed anew for its gradient drops the same
    values."""

    def __init__(self):
        self.seed, self.count = None, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self.count += 1
        return tf.stack([self.seed, self.count])


class Model(keras.Model):
    """What all models share: the configuration, the seeds of dropout, how a layer is run.

    In mixed precision the variables and the logits are float32; most of the rest computes in 16 bits.
    """

    head: str  # what transformers' class of the same model is called, after the architecture's name

    def __init__(self, config: Any, dtype: str):
        super().__init__(dtype=dtype)
        self.config = config
        self.gradient_checkpointing = False
        keras_private.set_untracked(self, "seeds", Seeds())

    def start_dropout(self, seed: tf.Tensor | None) -> None:
        """From here on the seed, an int32 scalar, decides what is dropped. None draws one at random."""
        self.seeds.seed = tf.random.uniform((), maxval=2**31 - 1, dtype="int32") if seed is None else seed
        self.seeds.count = 0

    def set_attention_dropout(self, rate: float) -> None:
        """Sets the dropout of attention's weights: KerasHub's layers have one rate for all their dropout."""
        for layer in keras_private.layers_within(self):
            if isinstance(layer, keras.layers.MultiHeadAttention):
                keras_private.set_dropout_of_attention(layer, rate)

    def share_seeds(self) -> None:
        """Has every dropout layer draw from `seeds`."""
        for layer in keras_private.layers_within(self):
            if isinstance(layer, keras.layers.Dropout):
                keras_private.set_untracked(layer, "seed_generator", self.seeds)

    def run(self, layer: Callable, *inputs: tf.Tensor, skipped: float = 0.0) -> tf.Tensor:
        """`layer(*inputs)`, or with a probability of `skipped` the first of `inputs`. With gradient
        checkpointing the backward pass computes it anew, with the same dropout."""
        if skipped:
            skips = tf.random.stateless_uniform((), self.seeds.next()) < skipped
            return tf.cond(skips, lambda: inputs[0], lambda: self.run(layer, *inputs))
        if not self.gradient_checkpointing:
            return layer(*inputs)
        first = self.seeds.count

        def again(*inputs):
            self.seeds.count = first
            return layer(*inputs)

        return tf.recompute_grad(again)(*inputs)


def mask_to_bias(mask: tf.Tensor, dtype: str) -> tf.Tensor:
    """What attention adds to its scores to see only the places where the mask is not 0."""
    # Half of the lowest number: its sum with a score is still a number.
    hidden = tf.constant(tf.as_dtype(dtype).min / 2, dtype)
    return tf.where(tf.cast(mask, "bool"), tf.constant(0, dtype), hidden)


def by_head(projected: tf.Tensor) -> tf.Tensor:
    """[rows, length, heads, width] as [rows, heads, length, width], or the reverse."""
    return tf.transpose(projected, [0, 2, 1, 3])


def attend(
    query: tf.Tensor, keys_values: KeysValues, bias: tf.Tensor | None, drop: Callable | None = None
) -> tf.Tensor:
    """Attention of a query, [rows, heads, length, width] as the result; `bias` is added to its scores. Keys
    and values may have fewer heads, each of which serves several of the query's."""
    groups = query.shape[1] // keys_values[0].shape[1]
    keys, values = (each if groups == 1 else tf.repeat(each, groups, axis=1) for each in keys_values)
    scores = tf.matmul(query, keys, transpose_b=True)
    weights = tf.nn.softmax(scores if bias is None else scores + bias)
    return tf.matmul(drop(weights) if drop else weights, values)


def appended(past: KeysValues, now: KeysValues) -> KeysValues:
    """Keys and values with those of the positions that follow."""
    return tf.concat([past[0], now[0]], axis=2), tf.concat([past[1], now[1]], axis=2)
