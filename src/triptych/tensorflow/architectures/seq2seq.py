"""What generating models share: how T5, mT5, and BART and its kin for Keras are called.

All are made of KerasHub's layers in the sizes that a configuration states, and answer the same calls, each of
which serves any number of rows and any length in one trace:

    model(inputs, training, seed)             the logits of given decoder inputs
    encode(input_ids, attention_mask)         the encoder's output
    start(states, attention_mask)             what generation reads of the source at every step
    step(tokens, position, past, source)      the logits of one more token for every beam
"""

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from triptych.tensorflow.architectures.layers import KeysValues, Model

TABLES = ("output", "encoder", "decoder")  # the uses of the shared table of embeddings


class Source(NamedTuple):
    """What generation reads of the source at every step.

    Attributes:
        keys_values: of each decoder layer's cross-attention.
        bias: added to its scores, [rows, 1, 1, length]: 0, or a large negative number where there is padding.
        table: the output embedding, [width, vocabulary].
    """

    keys_values: list[KeysValues]
    bias: tf.Tensor
    table: tf.Tensor


class Seq2Seq(Model):
    """What T5 and BART share: tables of embeddings, and how they are called."""

    head = "ForConditionalGeneration"

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        super().__init__(config, dtype)
        table = partial(keras.layers.Embedding, config.vocab_size, config.d_model, dtype="float32")
        self.shared = table(name="shared")
        self.shared.trainable = len(own_tables) < len(TABLES)
        self.tables = {use: table(name=use) if use in own_tables else self.shared for use in TABLES}
        for layer in (self.shared, *self.tables.values()):
            layer.build()

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits, float32 [rows, target length, vocabulary].

        Args:
            inputs: integers: `input_ids` and `attention_mask` [rows, source length], `decoder_input_ids` and,
                if wanted, `decoder_attention_mask` [rows, target length]; the decoder is causal in any case.
            training: whether to apply dropout, at the configuration's rates.
            seed: an int32 scalar that decides what is dropped; a random one if None.
        """
        if training:
            self.start_dropout(seed)
        states = self.encode(inputs["input_ids"], inputs["attention_mask"], training)
        mask = inputs.get("decoder_attention_mask")
        hidden = self.decode(inputs["decoder_input_ids"], states, inputs["attention_mask"], mask, training)
        return self.logits(hidden, self.table())

    def table(self) -> tf.Tensor:
        """The output embedding in the compute dtype, [width, vocabulary]."""
        return tf.transpose(tf.cast(self.tables["output"].embeddings, self.compute_dtype))

    def past_shape(self) -> tuple[int, int]:
        """Heads, and the width of a head, of the decoder's self-attention."""
        heads = getattr(self.config, "decoder_attention_heads", self.config.num_attention_heads)
        return heads, getattr(self.config, "d_kv", self.config.d_model // heads)


def each_alone(hidden: tf.Tensor) -> tf.Tensor:
    """[rows, beams, width] as [rows * beams, 1, width]: a beam attends to its own past only."""
    return tf.reshape(hidden, (-1, 1, hidden.shape[-1]))
