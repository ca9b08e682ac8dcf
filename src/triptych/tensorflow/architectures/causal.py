"""What decoders alone share, GPT-2 and those of `decoder`: how they are called, and how they continue texts.

model(inputs, training, seed)             the logits of given texts
start(prompts, mask, beams)               what generation has of the prompts
step(tokens, position, past, source)      the logits of one more token for every beam
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from triptych.models import decoders
from triptych.tensorflow.architectures.layers import KeysValues, Model, appended, attend, mask_to_bias

Seen = Callable[[int | None], tf.Tensor]  # what attention adds to its scores, for layers with such a window


class Prompts(NamedTuple):
    """What generation reads of the prompts at every step, beside their keys and values.

    Attributes:
        mask: integers [rows * beams, places], 0 at padding, which stands at the beginning of rows.
        table: the output embedding, [width, vocabulary].
    """

    mask: tf.Tensor
    table: tf.Tensor


class Causal(Model):
    """A decoder with the table of outputs, which is that of the tokens unless the head's is its own.

    Args:
        config: a transformers configuration of one of `decoders.MODEL_TYPES`.
        own_tables: "lm_head.weight" where the head has a table of its own.
    """

    head = decoders.HEAD
    decoder_layers: list[keras.layers.Layer]

    def __init__(self, config: Any, own_tables: Collection[str] = (), dtype: str = "float32"):
        super().__init__(config, dtype)
        self.tokens, own = (
            keras.layers.Embedding(config.vocab_size, config.hidden_size, dtype="float32", name=name)
            for name in ("tokens", "lm_head")
        )
        self.lm_head = own if own_tables else None
        for table in filter(None, (self.tokens, self.lm_head)):
            table.build()

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits, float32 [rows, length, vocabulary].

        Args:
            inputs: integers [rows, length]: `input_ids`, and `position_ids`, which begin anew at 0 with each
                text of a row: a place sees those before it in its own text, and no other. So padding on the
                right changes nothing.
            training: whether to apply dropout, at the configuration's rates.
            seed: an int32 scalar that decides what is dropped; a random one if None.
        """
        if training:
            self.start_dropout(seed)
        hidden = self.decode(inputs["input_ids"], inputs["position_ids"], training)
        return self.logits(hidden, self.table())

    def decode(self, input_ids: tf.Tensor, position_ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The last layer's output, normed, float32 [rows, length, width]; see `call`."""
        text = tf.cumsum(tf.cast(position_ids == 0, "int32"), axis=1)
        same = (text[:, :, None] == text[:, None, :])[:, None]
        places = tf.range(tf.shape(input_ids)[1])
        bias = bias_of(places, places, same, self.compute_dtype)
        return self.continue_texts(input_ids, position_ids, bias, training=training)[0]

    def logits(self, hidden: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Scores of the vocabulary, float32 [..., vocabulary], for what `decode` returns."""
        return tf.cast(tf.matmul(tf.cast(hidden, table.dtype), table), "float32")

    def table(self) -> tf.Tensor:
        """The output embedding in the compute dtype, [width, vocabulary]."""
        table = self.tokens if self.lm_head is None else self.lm_head
        return tf.transpose(tf.cast(table.embeddings, self.compute_dtype))

    def start(self, prompts: tf.Tensor, mask: tf.Tensor, beams: int) -> tuple[list[KeysValues], Prompts]:
        """Keys and values of all prompts but their last tokens, each row's `beams` times, and what `step`
        reads beside them.

        Args:
            prompts, mask: integers [rows, places], padded on the left, where the mask is 0.
        """
        places = tf.range(tf.shape(prompts)[1] - 1)
        before = mask[:, :-1]
        positions = tf.maximum(tf.cumsum(before, axis=1) - 1, 0)
        bias = bias_of(places, places, before[:, None, None] != 0, self.compute_dtype)
        kept = self.continue_texts(prompts[:, :-1], positions, bias)[1]
        past = tf.nest.map_structure(lambda values: tf.repeat(values, beams, axis=0), kept)
        return past, Prompts(tf.repeat(mask, beams, axis=0), self.table())

    def step(
        self, tokens: tf.Tensor, position: tf.Tensor, past: list[KeysValues], source: Prompts
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """One more token for every beam; see `Bart.step`. The position counts the prompts' padding."""
        new = tf.maximum(position + 1 - tf.shape(source.mask)[1], 0)
        real = tf.pad(source.mask, [[0, 0], [0, new]], constant_values=1)
        bias = bias_of(position[None], tf.range(position + 1), real[:, None, None] != 0, self.compute_dtype)
        padding = tf.reduce_sum(tf.cast(source.mask == 0, "int32"), axis=1)
        positions = tf.maximum(position - padding, 0)[:, None]
        hidden, new_past = self.continue_texts(tf.reshape(tokens, (-1, 1)), positions, bias, past)
        hidden = tf.reshape(hidden, (tf.shape(tokens)[0], tf.shape(tokens)[1], hidden.shape[-1]))
        return self.logits(hidden, source.table), new_past

    def continue_texts(
        self,
        tokens: tf.Tensor,
        positions: tf.Tensor,
        bias: Seen,
        past: list[KeysValues] | None = None,
        training: bool = False,
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """The last layer's output, normed, and each layer's keys and values: those of `past`, and of the
        tokens [rows, length], which follow it."""
        raise NotImplementedError

    def run_layers(
        self, hidden: tf.Tensor, inputs: list[tuple], past: list[KeysValues] | None, training: bool
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """The layers' output before the last norm, and keys and values as of `continue_texts`. Each layer
        reads the one before, its own of `inputs`, and its past."""
        kept: list[KeysValues] = []

        def run(layer, parts, hidden, *others):
            return layer(hidden, *others[:parts], past=others[parts:], training=training)

        for index, (layer, own) in enumerate(zip(self.decoder_layers, inputs, strict=True)):
            before = () if past is None else past[index]
            hidden, *keys_values = self.run(partial(run, layer, len(own)), hidden, *own, *before)
            kept.append(tuple(keys_values))
        return hidden, kept


def attention(
    query: tf.Tensor, now: KeysValues, past: Collection[tf.Tensor], bias: tf.Tensor, drop: Callable
) -> tuple[tf.Tensor, KeysValues]:
    """What a layer's attention makes of a query [rows, heads, length, width], [rows, length, heads * width],
    and the keys and values of the past and now, which it saw."""
    keys_values = appended(tuple(past), now) if past else now
    mixed = tf.transpose(attend(query, keys_values, bias, drop), [0, 2, 1, 3])
    shape = tf.shape(mixed)
    return tf.reshape(mixed, (shape[0], shape[1], mixed.shape[2] * mixed.shape[3])), keys_values


def split_heads(projected: tf.Tensor, width: int) -> tf.Tensor:
    """[rows, length, heads * width] as [rows, heads, length, width]."""
    shape = tf.shape(projected)
    return tf.transpose(
        tf.reshape(projected, (shape[0], shape[1], projected.shape[2] // width, width)), [0, 2, 1, 3]
    )


def bias_of(queries: tf.Tensor, keys: tf.Tensor, seen: tf.Tensor, dtype: str) -> Seen:
    """For a window, what attention adds to its scores, [rows or 1, 1, queries, keys]: places see themselves
    and those before, of `seen` alone, at most so many as the window says.

    Args:
        queries, keys: places in the row.
        seen: bool [rows or 1, 1, queries or 1, keys].
    """
    distance = queries[:, None] - keys[None, :]
    made: dict[int | None, tf.Tensor] = {}

    def bias(window: int | None) -> tf.Tensor:
        if window not in made:
            near = distance >= 0 if window is None else (distance >= 0) & (distance < window)
            made[window] = mask_to_bias(seen & near, dtype)
        return made[window]

    return bias


def padding_unlearnt(embedded: tf.Tensor, tokens: tf.Tensor, padding: int | None) -> tf.Tensor:
    """Embeddings of tokens of which, as in PyTorch, that of padding is not learnt by reading it."""
    if padding is None:
        return embedded
    return tf.where((tokens == padding)[..., None], tf.stop_gradient(embedded), embedded)
