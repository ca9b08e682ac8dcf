"""What is used of Keras and KerasHub and not public: that it is still there and does what it did, and that
nothing else is used."""

import inspect

import keras
import numpy as np
import private_uses
import pytest
import tensorflow as tf
from keras_hub.layers import TransformerDecoder, TransformerEncoder

from triptych.tensorflow import keras_private, optimization

FILE = private_uses.PACKAGE / "tensorflow/keras_private.py"
USES = {
    "Adam": ("_momentums", "_velocities"),
    "Layer": ("_flatten_layers", "object.__setattr__"),
    "MultiHeadAttention": ("_dropout", "_dropout_layer"),
    "Optimizer": ("_all_reduce_sum_gradients", "_get_variable_index"),
    "TransformerDecoder": ("_cross_attention_layer", "_cross_attention_layer_norm"),
    "TransformerEncoder": (
        *("_self_attention_layer", "_self_attention_layer_norm", "_self_attention_dropout"),
        *("_feedforward_intermediate_dense", "_feedforward_output_dense", "_feedforward_layer_norm"),
    ),
    "keras_hub": (
        "keras_hub.src.models.t5.t5_layer_norm.T5LayerNorm",
        "keras_hub.src.models.t5.t5_multi_head_attention.T5MultiHeadAttention",
        "keras_hub.src.models.t5.t5_transformer_layer.T5TransformerLayer",
    ),
}


def test_nothing_private_is_used_outside_the_file_for_it():
    listed = {name for names in USES.values() for name in names}
    assert private_uses.outside("tensorflow", FILE, listed) == []
    used = {use.partition(": ")[2] for use in private_uses.uses(FILE.read_text())}
    assert used | {"_all_reduce_sum_gradients"} == listed
    assert private_uses.overridden("tensorflow") == set(), "TakesSums alone overrides, and has no base"
    assert {name for names in keras_private.PRIVATE.values() for name in names} <= listed


@pytest.fixture(params=[TransformerEncoder, TransformerDecoder])
def layer(request):
    layer, shape = request.param(8, 2, dropout=0.1), (None, None, 4)
    layer.build(*((shape, shape) if request.param is TransformerDecoder else (shape,)))
    return layer


def test_parts_of_a_layer_are_what_their_names_say(layer):
    parts = keras_private.parts(layer)
    attentions = [parts.self_attention]
    if isinstance(layer, TransformerDecoder):
        attentions.append(parts.cross_attention)
        assert isinstance(parts.cross_attention_norm, keras.layers.LayerNormalization)
    else:
        assert parts.cross_attention is parts.cross_attention_norm is None
    for attention in attentions:
        assert isinstance(attention, keras.layers.MultiHeadAttention)
        dense = attention.query_dense, attention.key_dense, attention.value_dense, attention.output_dense
        assert [part.kernel.shape for part in dense] == [(4, 2, 2), (4, 2, 2), (4, 2, 2), (2, 2, 4)]
        assert attention.key_dim == 2
    assert parts.self_attention_dropout.rate == 0.1
    assert (parts.inner_dense.kernel.shape, parts.outer_dense.kernel.shape) == ((4, 8), (8, 4))
    for norm in (parts.self_attention_norm, parts.dense_norm):
        assert isinstance(norm, keras.layers.LayerNormalization)
        assert norm.gamma.shape == (4,)


def test_all_layers_within_are_found(layer):
    found, parts = keras_private.layers_within(layer), keras_private.parts(layer)
    for wanted in (layer, parts.self_attention, parts.self_attention.query_dense, parts.inner_dense):
        assert any(one is wanted for one in found)
    assert any(isinstance(one, keras.layers.Dropout) for one in found)


def test_dropout_of_an_attention_can_be_changed():
    attention = keras.layers.MultiHeadAttention(2, 2, dropout=0.5)
    attention.build((None, None, 4), (None, None, 4))
    rows = tf.random.normal((2, 3, 4))
    for rate, same in ((0.0, True), (0.9, False)):
        keras_private.set_dropout_of_attention(attention, rate)
        one, other = (attention(rows, rows, training=True) for _ in range(2))
        assert bool(tf.reduce_all(one == other)) == same


def test_attribute_with_a_state_can_be_set_after_a_layer_is_built():
    layer = keras.layers.Dropout(0.5)
    layer.build((None, 4))
    drawn = []
    for seed in (1, 1, 2):
        keras_private.set_untracked(layer, "seed_generator", keras.random.SeedGenerator(seed))
        drawn.append(layer(tf.ones((8, 8)), training=True).numpy())
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_optimizer_has_moments_by_the_place_of_a_variable():
    variables = [keras.Variable([1.0]), keras.Variable([[2.0, 3.0]])]
    optimizer = optimization.AdamW(variables, [0.0, 0.0])
    for moments in keras_private.moments(optimizer):
        assert [moment.shape for moment in moments] == [(1,), (1, 2)]
    assert [keras_private.index_of(optimizer, variable) for variable in variables] == [0, 1]


@pytest.mark.parametrize("kind", [optimization.AdamW, optimization.SGD])
def test_sums_over_devices_are_not_summed_again(kind):
    """What is overridden is what Keras calls, with pairs of gradients and variables."""
    theirs = inspect.signature(keras.optimizers.Optimizer._all_reduce_sum_gradients)
    assert list(theirs.parameters) == ["self", "grads_and_vars"]
    assert kind._all_reduce_sum_gradients is keras_private.TakesSums._all_reduce_sum_gradients
    optimizer, called = kind([keras.Variable([1.0])], [0.0]), []
    optimizer._all_reduce_sum_gradients = lambda pairs: called.append(1) or pairs
    optimizer.apply([tf.constant([1.0])], optimizer._trainable_variables)
    assert called


@pytest.mark.parametrize("name", ["T5LayerNorm", "T5MultiHeadAttention", "T5TransformerLayer"])
def test_layers_of_t5_are_layers(name):
    assert issubclass(getattr(keras_private, name), keras.Layer)
