"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), as DistilGPT2 is
too."""

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from triptych.models import decoders
from triptych.tensorflow.architectures.causal import Causal, attention, split_heads
from triptych.tensorflow.architectures.layers import activation


class Block(keras.layers.Layer):
    """Attention and a dense part, each with a norm before it. The parts have Hugging Face's names."""

    def __init__(self, config: Any, index: int, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)  # residuals stay float32
        width = config.hidden_size
        inner = config.n_inner or 4 * width
        sizes = {
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (width, inner),
            "mlp.c_proj": (inner, width),
        }
        self.linear = {
            part: keras.layers.Dense(outputs, dtype=dtype, name=part.replace(".", "_"))
            for part, (_, outputs) in sizes.items()
        }
        for part, layer in self.linear.items():
            layer.build((None, None, sizes[part][0]))
        self.norms = {part: layer_norm(config, part) for part in ("ln_1", "ln_2")}
        self.activation, self.width = (
            activation(config.activation_function),
            width // config.num_attention_heads,
        )
        self.scale = self.width**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= index + 1
        self.attention_dropout = keras.layers.Dropout(config.attn_pdrop, dtype=dtype)
        self.dropout = keras.layers.Dropout(config.resid_pdrop, dtype="float32")
        self.built = True

    def call(self, hidden, bias, past=(), training=False):
        """`hidden` float32 [rows, length, width] after the layer, and its keys and values with those of the
        past."""
        parts = tf.split(self.linear["attn.c_attn"](self.norms["ln_1"](hidden)), 3, axis=-1)
        query, key, value = (split_heads(part, self.width) for part in parts)

        def drop(weights):
            return self.attention_dropout(weights, training=training)

        mixed, keys_values = attention(query * self.scale, (key, value), past, bias, drop)
        change = self.linear["attn.c_proj"](mixed)
        hidden += self.dropout(change, training=training)
        inner = self.activation(self.linear["mlp.c_fc"](self.norms["ln_2"](hidden)))
        return hidden + self.dropout(self.linear["mlp.c_proj"](inner), training=training), *keys_values


class GPT2(Causal):
    """GPT-2 with the table of outputs. A text that is longer than the table of positions gets none that mean
    anything: whoever makes batches asks `configs.positions` before."""

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        super().__init__(config, own_tables, dtype)
        decoders.require_supported(config)
        places, layers = config.max_position_embeddings, range(config.num_hidden_layers)
        self.positions = keras.layers.Embedding(places, config.hidden_size, dtype="float32", name="positions")
        self.positions.build()
        self.decoder_layers = [Block(config, i, self.dtype_policy, f"layer_{i}") for i in layers]
        self.norm = layer_norm(config, "norm")
        self.dropout = keras.layers.Dropout(config.embd_pdrop, dtype="float32")
        self.share_seeds()

    def continue_texts(self, tokens, positions, bias, past=None, training=False):
        hidden = self.dropout(self.tokens(tokens) + self.positions(positions), training=training)
        inputs = [(bias(None),) for _ in self.decoder_layers]
        hidden, kept = self.run_layers(hidden, inputs, past, training)
        return self.norm(hidden), kept


def layer_norm(config: Any, name: str) -> keras.layers.LayerNormalization:
    """A norm of the model's width, built, in float32."""
    norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_epsilon, dtype="float32", name=name)
    norm.build((None, None, config.hidden_size))
    return norm
