"""BERT (Devlin et al. 2019, arXiv:1810.04805), RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R (Conneau
et al. 2020, arXiv:1911.02116), DistilBERT (Sanh et al. 2019, arXiv:1910.01108) and ELECTRA (Clark et al.
2020, arXiv:2003.10555) as classifiers of texts and of tokens, as readers that find answers, as judges of
choices, and with heads that find hidden tokens."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras_hub.layers import TransformerEncoder

from triptych.models.encoders import MASKED, base, encoder_settings, require_tied
from triptych.tensorflow import keras_private
from triptych.tensorflow.architectures.layers import Model, activation


class Classifier(Model):
    """An encoder, and a head that reads what it makes of the first token, or of every token.

    The layers of the head have Hugging Face's names.
    """

    class_ending = "ForSequenceClassification"
    every_token = False  # whether the head reads every token, not the first alone
    settings: Any
    tables: dict[str, keras.layers.Embedding]
    norm: keras.layers.LayerNormalization  # of the embeddings
    encoder_layers: list[keras.layers.Layer]

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        self.make_encoder()
        self.head_layers = self.make_head()
        self.head_dropout = keras.layers.Dropout(self.settings.head_dropout, dtype="float32")
        width = self.settings.width
        for layer in self.head_layers.values():
            layer.build((None, None, width))
            width = getattr(layer, "units", width)  # of a dense one, which the next reads
        self.share_seeds()

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits, float32 [rows, labels], or [rows, length, labels] of every token.

        Args:
            inputs: integers [rows, length]: `input_ids`, `attention_mask` and, for BERT, `token_type_ids`,
                which are 0 if left out.
            training: whether to apply dropout, at the configuration's rates.
            seed: an int32 scalar that decides what is dropped; a random one if None.
        """
        if training:
            self.start_dropout(seed)
        hidden = self.encode(inputs, training)
        read = hidden if self.every_token else self.pool(hidden, inputs["attention_mask"])
        return self.classify(read, partial(self.drop, training=training))

    def drop(
        self, values: tf.Tensor, dropout: keras.layers.Dropout | None = None, *, training: bool
    ) -> tf.Tensor:
        """Values of the head after its dropout, or another."""
        return (dropout or self.head_dropout)(values, training=training)

    def pool(self, hidden: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        """What a head for texts reads of all tokens, [rows, width]."""
        return hidden[:, 0]

    def make_encoder(self) -> None:
        """Makes and builds all but the head, and `settings`."""
        raise NotImplementedError

    def encode(self, inputs: dict[str, tf.Tensor], training: bool) -> tf.Tensor:
        """The last layer's output, [rows, length, width]; see `call`."""
        raise NotImplementedError

    def make_head(self) -> dict[str, keras.layers.Layer]:
        """The layers of the head by their names."""
        raise NotImplementedError

    def classify(self, read: tf.Tensor, drop: Any) -> tf.Tensor:
        """Logits of what the head reads: of the first token [rows, width], or of every token [rows, length,
        width]."""
        raise NotImplementedError


class Encoder(Classifier):
    """BERT and its kin. All layers of their heads are dense."""

    def make_encoder(self):
        s = self.settings = encoder_settings(self.config, self.class_ending)
        rows = {"word": self.config.vocab_size, "position": self.config.max_position_embeddings}
        rows |= {"token_type": s.token_types} if s.token_types else {}
        self.tables = {
            use: keras.layers.Embedding(count, s.embedding, dtype="float32", name=use)
            for use, count in rows.items()
        }
        self.norm = keras.layers.LayerNormalization(epsilon=s.norm_epsilon, dtype="float32", name="norm")
        self.encoder_layers = [
            TransformerEncoder(
                s.inner,
                s.heads,
                dropout=s.dropout,
                activation=activation(s.activation),
                layer_norm_epsilon=s.norm_epsilon,
                dtype=self.dtype_policy,
                name=f"layer_{i}",
            )
            for i in range(s.layers)
        ]
        self.dropout = keras.layers.Dropout(s.dropout, dtype="float32")
        for layer in (*self.tables.values(), self.norm):
            layer.build((None, None, s.embedding))
        for layer in self.encoder_layers:
            layer.build((None, None, s.width))
        self.projection = None
        if s.embedding != s.width:
            self.projection = keras.layers.Dense(s.width, dtype=self.dtype_policy, name="projection")
            self.projection.build((None, None, s.embedding))
        self.set_attention_dropout(s.attention_dropout)
        for layer in self.encoder_layers:
            keras_private.parts(layer).self_attention_dropout.rate = s.attended_dropout

    def encode(self, inputs, training):
        input_ids, token_type_ids = inputs["input_ids"], inputs.get("token_type_ids")
        hidden = self.tables["word"](input_ids) + self.tables["position"](self.positions(input_ids))
        if self.settings.token_types:
            types = tf.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden += self.tables["token_type"](types)
        hidden = self.dropout(self.norm(hidden), training=training)
        if self.projection is not None:
            hidden = tf.cast(self.projection(hidden), "float32")
        for layer in self.encoder_layers:
            hidden = self.run(partial(layer, training=training), hidden, inputs["attention_mask"])
        return hidden

    def positions(self, input_ids: tf.Tensor) -> tf.Tensor:
        """The row of each token in the table of positions."""
        if self.settings.padding is None:
            return tf.range(tf.shape(input_ids)[1])[None]
        real = tf.cast(input_ids != self.settings.padding, "int32")
        return tf.cumsum(real, axis=1) * real + self.settings.padding

    def make_head(self):
        return {
            name: keras.layers.Dense(outputs, dtype="float32", name=name.replace(".", "_"))
            for name, outputs in self.head_outputs().items()
        }

    def head_outputs(self) -> dict[str, int]:
        """The width that each layer of the head has."""
        raise NotImplementedError


class Bert(Encoder):
    """BERT's head: a pooler, which is trained with the encoder, and a linear layer."""

    def head_outputs(self):
        return {self.pooler: self.settings.width, "classifier": self.settings.outputs}

    def classify(self, first, drop):
        pooled = keras.activations.tanh(self.head_layers[self.pooler](first))
        return self.head_layers["classifier"](drop(pooled))

    @property
    def pooler(self) -> str:
        return f"{base(self.config)}.pooler.dense"


class Roberta(Encoder):
    """The head of RoBERTa and XLM-R: two layers."""

    def head_outputs(self):
        return {"classifier.dense": self.settings.width, "classifier.out_proj": self.settings.outputs}

    def classify(self, first, drop):
        hidden = keras.activations.tanh(self.head_layers["classifier.dense"](drop(first)))
        return self.head_layers["classifier.out_proj"](drop(hidden))


class Electra(Roberta):
    """ELECTRA's head is RoBERTa's with another activation."""

    def classify(self, first, drop):
        hidden = activation("gelu")(self.head_layers["classifier.dense"](drop(first)))
        return self.head_layers["classifier.out_proj"](drop(hidden))


class DistilBert(Encoder):
    """DistilBERT's head: two layers; it has no types of tokens."""

    def head_outputs(self):
        return {"pre_classifier": self.settings.width, "classifier": self.settings.outputs}

    def classify(self, first, drop):
        hidden = keras.activations.relu(self.head_layers["pre_classifier"](first))
        return self.head_layers["classifier"](drop(hidden))


class TokenClassifier(Encoder):
    """The head of all of them for tokens: a linear layer. No pooler is within."""

    class_ending = "ForTokenClassification"
    every_token = True

    def head_outputs(self):
        return {"classifier": self.settings.outputs}

    def classify(self, every, drop):
        return self.head_layers["classifier"](drop(every))


class QuestionReader(Encoder):
    """The head of all of them for questions: a linear layer with two outputs, float32 [rows, length, 2]: the
    scores of each token as the answer's first and as its last. No pooler is within."""

    class_ending = "ForQuestionAnswering"
    every_token = True

    def head_outputs(self):
        return {"qa_outputs": self.settings.outputs}

    def classify(self, every, drop):
        return self.head_layers["qa_outputs"](drop(every))


class Choices(Classifier):
    """Reads integers [rows, choices, length], each choice by itself, and scores it: logits, float32 [rows,
    choices]. A choice that is all padding has a score as well, which means nothing."""

    class_ending = "ForMultipleChoice"

    def call(self, inputs, training=False, seed=None):
        each = {name: tf.reshape(ids, [-1, tf.shape(ids)[-1]]) for name, ids in inputs.items()}
        return tf.reshape(super().call(each, training, seed), tf.shape(inputs["input_ids"])[:-1])


class BertChoices(Choices, Bert):
    """The head of BERT, RoBERTa and XLM-R for choices: a pooler, and a linear layer with one output."""


class DistilBertChoices(Choices, DistilBert):
    """DistilBERT's head for choices: two layers, of which the last has one output."""


class ElectraChoices(Choices, Encoder):
    """ELECTRA's head for choices: two layers, of which the last has one output."""

    def head_outputs(self):
        return {"sequence_summary.summary": self.settings.width, "classifier": self.settings.outputs}

    def classify(self, first, drop):
        hidden = activation("gelu")(self.head_layers["sequence_summary.summary"](first))
        return self.head_layers["classifier"](drop(hidden))


class Bias(keras.layers.Layer):
    """Adds to the scores of the vocabulary what each token has for itself."""

    def __init__(self, tokens: int, name: str):
        super().__init__(dtype="float32", name=name)
        self.bias = self.add_weight(shape=(tokens,), initializer="zeros", name="bias")
        self.built = True

    def call(self, scores: tf.Tensor) -> tf.Tensor:
        return scores + self.bias


class Masked(Classifier):
    """Finds hidden tokens: a dense layer with a norm reads what the encoder makes of some places, and a
    product with the table of tokens gives logits, float32 [rows, places, vocabulary].

    `places` of the inputs, integers [rows, places], are negative where there is none; the logits there mean
    nothing. Left out, they are all. The product is most of the work of a small model, and 15% of the places
    are hidden.
    """

    class_ending = MASKED
    parts: tuple[str, str, str]  # names of the dense layer, the norm, and what the bias belongs to
    table = "word"

    def call(self, inputs, training=False, seed=None):
        if training:
            self.start_dropout(seed)
        hidden = self.encode({name: ids for name, ids in inputs.items() if name != "places"}, training)
        if "places" in inputs:
            hidden = tf.gather(hidden, tf.maximum(inputs["places"], 0), batch_dims=1)
        dense, norm, bias = (self.head_layers.get(name) for name in self.parts)
        transformed = norm(activation(self.head_activation)(dense(hidden)))
        table = tf.cast(self.tables[self.table].embeddings, self.compute_dtype)
        scores = tf.matmul(tf.cast(transformed, table.dtype), table, transpose_b=True)
        scores = tf.cast(scores, "float32")
        return scores if bias is None else bias(scores)

    @property
    def head_activation(self) -> str:
        return self.settings.activation

    def make_head(self):
        require_tied(self.config)
        s, (dense, norm, bias) = self.settings, self.parts
        return {
            dense: keras.layers.Dense(s.embedding, dtype="float32", name="head_dense"),
            norm: keras.layers.LayerNormalization(epsilon=s.norm_epsilon, dtype="float32", name="head_norm"),
            bias: Bias(self.config.vocab_size, "head_bias"),
        }


class BertMasked(Masked, Encoder):
    """BERT's head."""

    parts = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions")


class RobertaMasked(Masked, Encoder):
    """The head of RoBERTa and XLM-R."""

    parts = ("lm_head.dense", "lm_head.layer_norm", "lm_head")

    @property
    def head_activation(self):
        return "gelu"


class DistilBertMasked(Masked, Encoder):
    """DistilBERT's head."""

    parts = ("vocab_transform", "vocab_layer_norm", "vocab_projector")


class ElectraMasked(Masked, Encoder):
    """The head of ELECTRA's generator, which is as narrow as its tables."""

    parts = ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head")

    @property
    def head_activation(self):
        return "gelu"
