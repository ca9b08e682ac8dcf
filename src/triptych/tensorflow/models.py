"""T5, mT5, BART and mBART for Keras, made of KerasHub's layers in the sizes that a configuration states.

Both classes answer the same calls, each of which serves any number of rows and any length in one trace:

    model(inputs, training, seed)             the logits of given decoder inputs
    encode(input_ids, attention_mask)         the encoder's output
    start(states, attention_mask)             what generation reads of the source at every step
    step(tokens, position, past, source)      the logits of one more token for every beam

In mixed precision the variables and the logits are float32, and so are T5's norms and residual sums, as under
torch.autocast; the rest computes in 16 bits.
"""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras_hub.layers import PositionEmbedding, TransformerDecoder, TransformerEncoder
from keras_hub.src.models.t5.t5_layer_norm import T5LayerNorm
from keras_hub.src.models.t5.t5_multi_head_attention import T5MultiHeadAttention
from keras_hub.src.models.t5.t5_transformer_layer import T5TransformerLayer

from triptych.errors import InputError

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

POSITION_OFFSET = 2  # BART's tables of positions begin with two rows that are never read
TABLES = ("output", "encoder", "decoder")  # the uses of the shared table of embeddings

KeysValues = tuple[tf.Tensor, tf.Tensor]  # each [rows, heads, length, width of a head]


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


class Seeds(keras.random.SeedGenerator):
    """The seed of each dropout, int32 [2]: a given number, and a count. It has no state, so that dropout is a
    function of the step's seed, and a layer that is computed anew for its gradient drops the same values."""

    def __init__(self):
        self.seed, self.count = None, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self.count += 1
        return tf.stack([self.seed, self.count])


def build(
    config: Any,
    *,
    own_tables: Collection[str] = (),
    dtype: str = "float32",
    gradient_checkpointing: bool = False,
) -> "Seq2Seq":
    """The model of a configuration; its variables are made but not filled, which `checkpoint` does.

    Args:
        config: a transformers configuration whose `model_type` is in ARCHITECTURES.
        own_tables: which of TABLES use a table of embeddings of their own instead of the shared one.
        dtype: a Keras policy: "float32", "mixed_bfloat16" or "mixed_float16".
        gradient_checkpointing: compute each layer anew for its gradient instead of keeping its activations.

    Raises:
        InputError: if the architecture or its activation is not among those that work.
    """
    model = model_class(config)(config, own_tables, dtype)
    model.gradient_checkpointing = gradient_checkpointing
    return model


def model_class(config: Any) -> type["Seq2Seq"]:
    """The class for a configuration; if there is none, InputError lists those that work."""
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise InputError(
            f"The architecture {config.model_type!r} is not supported in this form; there are: {known}."
        )
    return ARCHITECTURES[config.model_type]


def activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function of that name; InputError for a name that is not in ACTIVATIONS."""
    if name not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise InputError(f"The configuration asks for the activation {name!r}; there are: {known}.")
    return ACTIVATIONS[name]


class Seq2Seq(keras.Model):
    """What both architectures share: tables of embeddings, the seeds of dropout, how a layer is run."""

    def __init__(self, config: Any, own_tables: Collection[str], dtype: str):
        super().__init__(dtype=dtype)
        self.config = config
        self.gradient_checkpointing = False
        object.__setattr__(self, "seeds", Seeds())  # around Keras, which would look for its state
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
            self.seeds.seed = tf.random.uniform((), maxval=2**31 - 1, dtype="int32") if seed is None else seed
            self.seeds.count = 0
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

    def share_seeds(self) -> None:
        """Let every dropout layer draw from `seeds`."""
        for layer in self._flatten_layers():
            if isinstance(layer, keras.layers.Dropout):
                # Around Keras, which takes no seed generator after the layer is built.
                object.__setattr__(layer, "seed_generator", self.seeds)

    def run(self, layer: Callable, *inputs: tf.Tensor, skipped: float = 0.0) -> tf.Tensor:
        """`layer(*inputs)`, or with a probability of `skipped` the first of `inputs`. With gradient
        checkpointing it is computed anew for its gradient, with the same dropout."""
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


class T5(Seq2Seq):
    """T5 (Raffel et al. 2020, arXiv:1910.10683) with its head; 1.1 is gated and does not scale its output."""

    def __init__(self, config: Any, own_tables: Collection[str], dtype: str):
        super().__init__(config, own_tables, dtype)
        c = config
        layer = partial(
            T5TransformerLayer,
            hidden_dim=c.d_model,
            intermediate_dim=c.d_ff,
            key_value_dim=c.d_kv,
            num_heads=c.num_heads,
            dropout=c.dropout_rate,
            activation=activation(c.dense_act_fn),
            use_gated_activation=c.is_gated_act,
            layer_norm_epsilon=c.layer_norm_epsilon,
            dtype=self.dtype_policy,
        )
        # Those of KerasHub know only 32 buckets and a distance of 128.
        buckets = c.relative_attention_num_buckets
        bias = partial(keras.layers.Embedding, buckets, c.num_heads, dtype=self.dtype_policy)
        self.encoder_bias, self.decoder_bias = bias(name="encoder_bias"), bias(name="decoder_bias")
        self.encoder_layers = [layer(False, name=f"encoder_{i}") for i in range(c.num_layers)]
        self.decoder_layers = [layer(True, name=f"decoder_{i}") for i in range(c.num_decoder_layers)]
        self.encoder_norm = T5LayerNorm(c.layer_norm_epsilon, dtype="float32", name="encoder_norm")
        self.decoder_norm = T5LayerNorm(c.layer_norm_epsilon, dtype="float32", name="decoder_norm")
        self.dropout = keras.layers.Dropout(c.dropout_rate, dtype="float32")
        scales = getattr(c, "scale_decoder_outputs", False)  # mT5 never does
        self.scale = c.d_model**-0.5 if scales else 1.0
        for layer in (self.encoder_bias, self.decoder_bias, self.encoder_norm, self.decoder_norm):
            layer.build((None, c.d_model))
        for layer in (*self.encoder_layers, *self.decoder_layers):
            self._build_layer(layer)
        self.share_seeds()

    def encode(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The encoder's output, float32 [rows, length, width]."""
        positions = tf.range(tf.shape(input_ids)[1])
        bias = self._position_bias(self.encoder_bias, positions, positions, both_ways=True)
        bias += mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        hidden = self.dropout(self.tables["encoder"](input_ids), training=training)
        for layer in self.encoder_layers:
            hidden = self.run(partial(self._layer, layer, training), hidden, bias)
        return self.dropout(self.encoder_norm(hidden), training=training)

    def decode(
        self, decoder_input_ids, states, attention_mask, decoder_attention_mask=None, training=False
    ) -> tf.Tensor:
        """The decoder's output, float32 [rows, target length, width]."""
        positions = tf.range(tf.shape(decoder_input_ids)[1])
        mask = (positions <= positions[:, None])[None, None]
        if decoder_attention_mask is not None:
            mask &= decoder_attention_mask[:, None, None] != 0
        bias = self._position_bias(self.decoder_bias, positions, positions, both_ways=False)
        bias += mask_to_bias(mask, self.compute_dtype)
        source_bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        hidden = self.dropout(self.tables["decoder"](decoder_input_ids), training=training)
        for layer in self.decoder_layers:
            hidden = self.run(partial(self._layer, layer, training), hidden, bias, states, source_bias)
        return self.dropout(self.decoder_norm(hidden), training=training)

    def logits(self, hidden: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Scores of the vocabulary, float32 [..., vocabulary], for the decoder's output."""
        return tf.cast(tf.matmul(tf.cast(hidden * self.scale, table.dtype), table), "float32")

    def start(self, states: tf.Tensor, attention_mask: tf.Tensor) -> Source:
        """What `step` reads of the encoder's output."""
        keys_values = [self._keys_values(layer.cross_attention, states) for layer in self.decoder_layers]
        bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        return Source(keys_values, bias, self.table())

    def step(
        self, tokens: tf.Tensor, position: tf.Tensor, past: list[KeysValues], source: Source
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """One more token for every beam; see `Bart.step`."""
        bias = self._position_bias(self.decoder_bias, position[None], tf.range(position + 1), both_ways=False)
        hidden, new_past = self.tables["decoder"](tokens), []
        for layer, before, keys_values in zip(self.decoder_layers, past, source.keys_values, strict=True):
            normed = each_alone(layer.self_attention_layer_norm(hidden))
            new_past.append(appended(before, self._keys_values(layer.self_attention, normed)))
            change = self._attention(layer.self_attention, normed, new_past[-1], bias)
            hidden += tf.reshape(change, tf.shape(hidden))
            normed = layer.cross_attention_layer_norm(hidden)
            hidden += self._attention(layer.cross_attention, normed, keys_values, source.bias)
            hidden += self._feed_forward(layer, hidden)
        return self.logits(self.decoder_norm(hidden), source.table), new_past

    def _build_layer(self, layer: T5TransformerLayer) -> None:
        # Left to be built by its first call, a layer takes half a second.
        inner = {layer.output_projector: self.config.d_ff}
        for part in layer._flatten_layers():
            part.built = True
            if isinstance(part, T5MultiHeadAttention):
                inner[part.output_projector] = part.inner_dim
            if isinstance(part, T5LayerNorm):
                part.dtype_policy = "float32"
            if isinstance(part, T5LayerNorm | keras.layers.Dense):
                with keras.name_scope(layer.name):
                    part.build((None, inner.get(part, self.config.d_model)))

    def _layer(self, layer, training: bool, hidden, bias, states=None, source_bias=None) -> tf.Tensor:
        # Part by part, because the layer's own call adds up in 16 bits, and gives no numbers in float16.
        normed = layer.self_attention_layer_norm(hidden)
        keys_values = self._keys_values(layer.self_attention, normed)
        change = self._attention(layer.self_attention, normed, keys_values, bias, training)
        hidden += self.dropout(change, training=training)
        if states is not None:
            normed = layer.cross_attention_layer_norm(hidden)
            keys_values = self._keys_values(layer.cross_attention, states)
            change = self._attention(layer.cross_attention, normed, keys_values, source_bias, training)
            hidden += self.dropout(change, training=training)
        return hidden + self._feed_forward(layer, hidden, training)

    def _keys_values(self, part: T5MultiHeadAttention, states: tf.Tensor) -> KeysValues:
        return self._heads(part.key_projector(states)), self._heads(part.value_projector(states))

    def _attention(self, part, normed, keys_values: KeysValues, bias, training: bool = False) -> tf.Tensor:
        drop = partial(part.dropout_layer, training=training)
        context = by_head(attend(self._heads(part.query_projector(normed)), keys_values, bias, drop))
        shape = tf.shape(context)
        context = tf.reshape(context, (shape[0], shape[1], part.inner_dim))
        return tf.cast(part.output_projector(context), "float32")

    def _heads(self, projected: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(projected)
        heads = (shape[0], shape[1], self.config.num_heads, self.config.d_kv)
        return by_head(tf.reshape(projected, heads))

    def _feed_forward(
        self, layer: T5TransformerLayer, hidden: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        normed = layer.layer_norm(hidden)
        inner = layer.input_projector(normed)
        if layer.use_gated_activation:
            inner *= layer.gate_projector(normed)
        change = layer.output_projector(layer.dropout_layer(inner, training=training))
        return self.dropout(change, training=training)

    def _position_bias(self, embedding, queries: tf.Tensor, keys: tf.Tensor, both_ways: bool) -> tf.Tensor:
        """The learnt bias of each pair of positions, [1, heads, queries, keys]."""
        furthest = self.config.relative_attention_max_distance
        buckets = distance_buckets(self.config.relative_attention_num_buckets, furthest, both_ways)
        distances = tf.clip_by_value(keys - queries[:, None], -furthest, furthest) + furthest
        return tf.transpose(tf.gather(embedding(buckets), distances), [2, 0, 1])[None]


class Bart(Seq2Seq):
    """BART (Lewis et al. 2020, arXiv:1910.13461) with its head. mBART (Liu et al. 2020, arXiv:2001.08210)
    normalises before each part of a layer instead of after it, and once more at the end of a stack."""

    def __init__(self, config: Any, own_tables: Collection[str], dtype: str):
        super().__init__(config, own_tables, dtype)
        c = config
        self.norm_first = c.model_type == "mbart"
        self.scale = math.sqrt(c.d_model) if c.scale_embedding else 1.0
        self.activation_dropout = keras.layers.Dropout(c.activation_dropout, dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(c.dropout, dtype="float32")

        function = activation(c.activation_function)
        options = {
            "activation": lambda inner: self.activation_dropout(function(inner)),
            "normalize_first": self.norm_first,
            "dropout": c.dropout,
            "dtype": self.dtype_policy,
        }
        positions = partial(PositionEmbedding, c.max_position_embeddings + POSITION_OFFSET, dtype="float32")
        norm = partial(keras.layers.LayerNormalization, epsilon=1e-5, dtype="float32")
        self.positions = {use: positions(name=f"{use}_positions") for use in ("encoder", "decoder")}
        self.first_norms = {use: norm(name=f"{use}_first_norm") for use in ("encoder", "decoder")}
        self.encoder_layers = [
            TransformerEncoder(c.encoder_ffn_dim, c.encoder_attention_heads, name=f"encoder_{i}", **options)
            for i in range(c.encoder_layers)
        ]
        self.decoder_layers = [
            TransformerDecoder(c.decoder_ffn_dim, c.decoder_attention_heads, name=f"decoder_{i}", **options)
            for i in range(c.decoder_layers)
        ]
        last = norm if self.norm_first else partial(keras.layers.Identity, dtype="float32")
        self.last_norms = {use: last(name=f"{use}_last_norm") for use in ("encoder", "decoder")}
        self.final_logits_bias = self.add_weight(
            (1, c.vocab_size), "zeros", trainable=False, autocast=False, name="final_logits_bias"
        )
        shape = (None, None, c.d_model)
        norms = (*self.first_norms.values(), *self.last_norms.values())
        for layer in (*self.positions.values(), *norms, *self.encoder_layers):
            layer.build(shape)
        for layer in self.decoder_layers:
            layer.build(shape, shape)
        for layer in self._flatten_layers():
            if isinstance(layer, keras.layers.MultiHeadAttention):
                # KerasHub's layers have one rate for all their dropout.
                layer._dropout = layer._dropout_layer.rate = c.attention_dropout
        self.share_seeds()

    def encode(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The encoder's output, float32 [rows, length, width]."""
        hidden = self._embed("encoder", input_ids)
        hidden = self.dropout(hidden, training=training)
        skipped = self.config.encoder_layerdrop if training else 0.0
        for layer in self.encoder_layers:
            hidden = self.run(partial(layer, training=training), hidden, attention_mask, skipped=skipped)
        return self.last_norms["encoder"](hidden)

    def decode(
        self, decoder_input_ids, states, attention_mask, decoder_attention_mask=None, training=False
    ) -> tf.Tensor:
        """The decoder's output, float32 [rows, target length, width]."""
        hidden = self._embed("decoder", decoder_input_ids)
        hidden = self.dropout(hidden, training=training)
        mask = tf.ones_like(decoder_input_ids) if decoder_attention_mask is None else decoder_attention_mask

        def run(layer, hidden, states, mask, attention_mask):
            return layer(hidden, states, mask, encoder_padding_mask=attention_mask, training=training)

        skipped = self.config.decoder_layerdrop if training else 0.0
        for layer in self.decoder_layers:
            hidden = self.run(partial(run, layer), hidden, states, mask, attention_mask, skipped=skipped)
        return self.last_norms["decoder"](hidden)

    def logits(self, hidden: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Scores of the vocabulary, float32 [..., vocabulary], for the decoder's output."""
        return tf.cast(tf.matmul(tf.cast(hidden, table.dtype), table), "float32") + self.final_logits_bias

    def start(self, states: tf.Tensor, attention_mask: tf.Tensor) -> Source:
        """What `step` reads of the encoder's output."""
        attentions = [layer._cross_attention_layer for layer in self.decoder_layers]
        keys_values = [self._keys_values(part, states) for part in attentions]
        bias = mask_to_bias(attention_mask[:, None, None], self.compute_dtype)
        return Source(keys_values, bias, self.table())

    def step(
        self, tokens: tf.Tensor, position: tf.Tensor, past: list[KeysValues], source: Source
    ) -> tuple[tf.Tensor, list[KeysValues]]:
        """One more token for every beam.

        Args:
            tokens: the last token of each, integers [rows, beams].
            position: its position, int32 scalar.
            past: of each decoder layer's self-attention, keys and values of the positions before, for all
                rows' beams one after the other: [rows * beams, heads, position, width of a head].
            source: what `start` returned.

        Returns:
            The next token's scores, float32 [rows, beams, vocabulary], and `past` with this position.
        """
        hidden, new_past = self._embed("decoder", tokens[..., None], position)[:, :, 0], []
        for layer, before, keys_values in zip(self.decoder_layers, past, source.keys_values, strict=True):

            def attention(normed, part=layer._self_attention_layer, before=before):
                alone = each_alone(normed)
                new_past.append(appended(before, self._keys_values(part, alone)))
                return tf.reshape(self._attention(part, alone, new_past[-1]), tf.shape(normed))

            def cross_attention(normed, part=layer._cross_attention_layer, keys_values=keys_values):
                return self._attention(part, normed, keys_values, source.bias)

            def feed_forward(normed, layer=layer):
                return layer._feedforward_output_dense(layer._feedforward_intermediate_dense(normed))

            hidden = self._around(attention, layer._self_attention_layer_norm, hidden)
            hidden = self._around(cross_attention, layer._cross_attention_layer_norm, hidden)
            hidden = self._around(feed_forward, layer._feedforward_layer_norm, hidden)
        return self.logits(self.last_norms["decoder"](hidden), source.table), new_past

    def _around(self, part: Callable, norm: keras.layers.Layer, hidden: tf.Tensor) -> tf.Tensor:
        hidden = tf.cast(hidden, self.compute_dtype)
        return hidden + part(norm(hidden)) if self.norm_first else norm(hidden + part(hidden))

    def _keys_values(self, part: keras.layers.MultiHeadAttention, states: tf.Tensor) -> KeysValues:
        return by_head(part.key_dense(states)), by_head(part.value_dense(states))

    def _attention(self, part, normed, keys_values: KeysValues, bias: tf.Tensor | None = None) -> tf.Tensor:
        query = by_head(part.query_dense(normed)) * part.key_dim**-0.5
        return part.output_dense(by_head(attend(query, keys_values, bias)))

    def _embed(self, use: str, tokens: tf.Tensor, first: tf.Tensor | int = 0) -> tf.Tensor:
        embedded = self.tables[use](tokens) * self.scale
        positions = self.positions[use](embedded, start_index=first + POSITION_OFFSET)
        return self.first_norms[use](embedded + positions)


ARCHITECTURES = {"t5": T5, "mt5": T5, "bart": Bart, "mbart": Bart}


def distance_buckets(buckets: int, furthest: int, both_ways: bool) -> np.ndarray:
    """T5's bucket of each position of a key relative to the query's, from -furthest to furthest; int32
    [2 * furthest + 1]. Half of a direction's buckets hold one distance each, the others spans that grow as
    powers."""
    relative = np.arange(-furthest, furthest + 1)
    buckets = buckets // 2 if both_ways else buckets
    near, distance = buckets // 2, np.abs(relative) if both_ways else np.maximum(-relative, 0)
    power = np.log(np.maximum(distance, 1).astype(np.float32) / near) / np.float32(math.log(furthest / near))
    far = np.minimum(near + (power * (buckets - near)).astype(int), buckets - 1)
    ahead = np.where(relative > 0, buckets, 0) if both_ways else 0
    return (np.where(distance < near, distance, far) + ahead).astype(np.int32)


def mask_to_bias(mask: tf.Tensor, dtype: str) -> tf.Tensor:
    """What to add to attention's scores so that only places where the mask is not 0 are seen."""
    # Half of the lowest number, for the sum with a score to be one as well.
    hidden = tf.constant(tf.as_dtype(dtype).min / 2, dtype)
    return tf.where(tf.cast(mask, "bool"), tf.constant(0, dtype), hidden)


def by_head(projected: tf.Tensor) -> tf.Tensor:
    """[rows, length, heads, width] as [rows, heads, length, width], or the reverse."""
    return tf.transpose(projected, [0, 2, 1, 3])


def attend(
    query: tf.Tensor, keys_values: KeysValues, bias: tf.Tensor | None, drop: Callable | None = None
) -> tf.Tensor:
    """Attention of a query, [rows, heads, length, width] as the result; `bias` is added to its scores."""
    keys, values = keys_values
    scores = tf.matmul(query, keys, transpose_b=True)
    weights = tf.nn.softmax(scores if bias is None else scores + bias)
    return tf.matmul(drop(weights) if drop else weights, values)


def appended(past: KeysValues, now: KeysValues) -> KeysValues:
    """Keys and values with those of the positions that follow."""
    return tf.concat([past[0], now[0]], axis=2), tf.concat([past[1], now[1]], axis=2)


def each_alone(hidden: tf.Tensor) -> tf.Tensor:
    """[rows, beams, width] as [rows * beams, 1, width]: a beam attends to its own past only."""
    return tf.reshape(hidden, (-1, 1, hidden.shape[-1]))
