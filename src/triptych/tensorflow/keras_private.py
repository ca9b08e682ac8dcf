"""All that is used of Keras and KerasHub and is no part of their public interface, as plain functions.

An upgrade of these libraries is this file; `tests/tensorflow/test_private.py` names each use, and refuses one
elsewhere.
"""

from typing import Any, NamedTuple

import keras
from keras_hub.src.models.t5.t5_layer_norm import T5LayerNorm
from keras_hub.src.models.t5.t5_multi_head_attention import T5MultiHeadAttention
from keras_hub.src.models.t5.t5_transformer_layer import T5TransformerLayer

from triptych import libraries

__all__ = ["T5LayerNorm", "T5MultiHeadAttention", "T5TransformerLayer"]

PRIVATE = {
    keras.Layer: ("_flatten_layers",),
    keras.optimizers.Optimizer: ("_all_reduce_sum_gradients", "_get_variable_index"),
}

libraries.require_private("keras", PRIVATE)


class Parts(NamedTuple):
    """The layers within a TransformerEncoder or a TransformerDecoder of KerasHub, once it is built."""

    self_attention: keras.layers.MultiHeadAttention
    self_attention_norm: keras.layers.Layer
    self_attention_dropout: keras.layers.Dropout
    cross_attention: keras.layers.MultiHeadAttention | None  # of a decoder
    cross_attention_norm: keras.layers.Layer | None
    inner_dense: keras.layers.Dense
    outer_dense: keras.layers.Dense
    dense_norm: keras.layers.Layer


def parts(layer: keras.layers.Layer) -> Parts:
    """The layers within a TransformerEncoder or a TransformerDecoder of KerasHub."""
    return Parts(
        layer._self_attention_layer,
        layer._self_attention_layer_norm,
        layer._self_attention_dropout,
        getattr(layer, "_cross_attention_layer", None),
        getattr(layer, "_cross_attention_layer_norm", None),
        layer._feedforward_intermediate_dense,
        layer._feedforward_output_dense,
        layer._feedforward_layer_norm,
    )


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all layers within it, at any depth."""
    return list(layer._flatten_layers())


def set_dropout_of_attention(attention: keras.layers.MultiHeadAttention, rate: float) -> None:
    """Changes the dropout of the weights of an attention that is built: the rate that decides whether Keras
    may fuse its operations, and that of the layer."""
    attention._dropout = attention._dropout_layer.rate = rate


def set_untracked(layer: keras.layers.Layer, name: str, value: Any) -> None:
    """Sets an attribute around `Layer.__setattr__`, which would look for the state of the value, and refuses
    one with state after the layer is built."""
    object.__setattr__(layer, name, value)


def moments(optimizer: keras.optimizers.Adam) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Adam's first and second moment of each variable, in the order in which it was built."""
    return list(optimizer._momentums), list(optimizer._velocities)


def index_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The place of a variable among those that an optimizer was built with."""
    return optimizer._get_variable_index(variable)


class TakesSums:
    """Base of optimizers whose `apply` takes gradients that are summed over the devices already: Keras would
    sum them once more."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        return grads_and_vars
