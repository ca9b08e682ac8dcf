"""BERT (Devlin et al. 2019, arXiv:1810.04805), RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-R (Conneau
et al. 2020, arXiv:1911.02116), DistilBERT (Sanh et al. 2019, arXiv:1910.01108) and ELECTRA (Clark et al.
2020, arXiv:2003.10555) as classifiers of texts and of tokens, as readers that find answers, as judges of
choices, and with heads that find hidden tokens."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import (
    activation,
    attend,
    drop,
    layer_norm,
    mask_to_bias,
    require_positions,
    run_layer,
    vocabulary_scores,
)
from triptych.models.encoders import MASKED, EncoderSettings, base, encoder_settings, require_tied


class Layer(nnx.Module):
    """A layer of the encoder: attention and a dense part, each added to what it read, and normed."""

    def __init__(self, settings: EncoderSettings, *, distilled: bool, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        norm = partial(layer_norm, settings.width, settings.norm_epsilon, rngs=rngs)
        width, inner = settings.width, settings.inner
        if distilled:
            names = ("q_lin", "k_lin", "v_lin", "out_lin")
            self.attention = nnx.Dict({name: linear(width, width) for name in names})
            self.sa_layer_norm, self.output_layer_norm = norm(), norm()
            self.ffn = nnx.Dict(lin1=linear(width, inner), lin2=linear(inner, width))
        else:
            own = nnx.Dict({name: linear(width, width) for name in ("query", "key", "value")})
            output = nnx.Dict(dense=linear(width, width), LayerNorm=norm())
            self.attention = nnx.Dict({"self": own, "output": output})
            self.intermediate = nnx.Dict(dense=linear(width, inner))
            self.output = nnx.Dict(dense=linear(inner, width), LayerNorm=norm())
        self.distilled, self.heads, self.scale = distilled, settings.heads, (width // settings.heads) ** -0.5
        self.activation = activation(settings.activation)
        self.attention_dropout = nnx.Dropout(settings.attention_dropout)
        self.attended_dropout, self.dropout = map(nnx.Dropout, (settings.attended_dropout, settings.dropout))

    def __call__(self, hidden, bias, rngs):
        own, out, first_norm, inner, outer, last_norm = self.parts()
        by_head = (*hidden.shape[:2], self.heads, -1)
        query, key, value = (part(hidden).reshape(by_head) for part in own)
        mixed = attend(query * self.scale, (key, value), bias, self.attention_dropout, rngs)
        change = drop(out(mixed.reshape(hidden.shape)), self.attended_dropout, rngs)
        hidden = first_norm(hidden + change)
        change = drop(outer(self.activation(inner(hidden))), self.dropout, rngs)
        return last_norm(hidden + change)

    def parts(self):
        """Queries, keys and values; the output of attention and the norm after it; the same of the dense
        part."""
        if self.distilled:
            own = self.attention.q_lin, self.attention.k_lin, self.attention.v_lin
            dense = self.ffn.lin1, self.ffn.lin2, self.output_layer_norm
            return own, self.attention.out_lin, self.sa_layer_norm, *dense
        attention, output = self.attention.self, self.attention.output
        own = attention.query, attention.key, attention.value
        dense = self.intermediate.dense, self.output.dense, self.output.LayerNorm
        return own, output.dense, output.LayerNorm, *dense


class Encoder(nnx.Module):
    """Embeddings and layers."""

    def __init__(self, config, settings: EncoderSettings, *, checkpoint: bool, dtype, rngs: nnx.Rngs):
        table = partial(nnx.Embed, features=settings.embedding, rngs=rngs)
        tables = {
            "word_embeddings": table(config.vocab_size),
            "position_embeddings": table(config.max_position_embeddings),
        }
        if settings.token_types:
            tables["token_type_embeddings"] = table(settings.token_types)
        norm = layer_norm(settings.embedding, settings.norm_epsilon, rngs=rngs)
        self.embeddings = nnx.Dict(**tables, LayerNorm=norm)
        if settings.embedding != settings.width:
            self.embeddings_project = nnx.Linear(settings.embedding, settings.width, dtype=dtype, rngs=rngs)
        distilled = config.model_type == "distilbert"
        layer = partial(Layer, settings, distilled=distilled, dtype=dtype, rngs=rngs)
        self.stack = "transformer" if distilled else "encoder"
        setattr(self, self.stack, nnx.Dict(layer=nnx.List(layer() for _ in range(settings.layers))))
        self.dropout = nnx.Dropout(settings.dropout)
        self.padding, self.checkpoint = settings.padding, checkpoint

    def __call__(self, input_ids, attention_mask, token_type_ids, rngs) -> jax.Array:
        """The last layer's output, float32 [batch, length, width]."""
        tables = self.embeddings
        rows = tables.position_embeddings.num_embeddings
        require_positions(input_ids.shape[1], rows if self.padding is None else rows - self.padding - 1)
        hidden = tables.word_embeddings(input_ids) + tables.position_embeddings(self.positions(input_ids))
        if hasattr(tables, "token_type_embeddings"):
            types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            hidden = hidden + tables.token_type_embeddings(types)
        hidden = drop(tables.LayerNorm(hidden), self.dropout, rngs)
        if hasattr(self, "embeddings_project"):
            hidden = self.embeddings_project(hidden).astype(jnp.float32)
        bias = mask_to_bias(attention_mask[:, None, None, :])
        for layer in getattr(self, self.stack).layer:
            hidden = run_layer(layer, hidden, bias, rngs=rngs, checkpoint=self.checkpoint)
        return hidden

    def positions(self, input_ids: jax.Array) -> jax.Array:
        """The row of each token in the table of positions."""
        if self.padding is None:
            return jnp.arange(input_ids.shape[1])
        real = (input_ids != self.padding).astype(jnp.int32)
        return jnp.cumsum(real, axis=1) * real + self.padding


class Classifier(nnx.Module):
    """An encoder, and a head that reads what it makes of the first token, or of every token.

    Args:
        config: of transformers.
        dtype: of the encoder's matrix products; parameters, residuals, norms, softmax, and the head are
            float32.
        gradient_checkpointing: whether gradients compute each layer's activations anew, which saves memory.
        rngs: not used: `conversion.load` gives the parameters.
    """

    class_ending = "ForSequenceClassification"
    every_token = False  # whether the head reads every token, not the first alone

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        settings, make = self.parts(config)
        encoder = make(config, settings, checkpoint=gradient_checkpointing, dtype=dtype, rngs=rngs)
        self.base, self.dropout = base(config), nnx.Dropout(settings.head_dropout)
        setattr(self, self.base, encoder)
        self.make_head(settings, rngs)

    def __call__(self, input_ids, attention_mask, token_type_ids=None, rngs=None) -> jax.Array:
        """Logits, float32 [batch, labels], or [batch, length, labels] of every token, of integers
        [batch, length]. The mask is 0 at padding; types of tokens are 0 if not given, and not read by
        DistilBERT. `rngs` draws dropout ("dropout"), if given."""
        hidden = getattr(self, self.base)(input_ids, attention_mask, token_type_ids, rngs)
        read = hidden if self.every_token else self.pool(hidden, attention_mask)
        return self.classify(read, partial(drop, dropout=self.dropout, rngs=rngs))

    def parts(self, config: Any) -> tuple[Any, Any]:
        """The settings, and the class of the encoder."""
        return encoder_settings(config, self.class_ending), Encoder

    def pool(self, hidden: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """What a head for texts reads of all tokens, [batch, width]."""
        return hidden[:, 0]

    def make_head(self, settings: Any, rngs: nnx.Rngs) -> None:
        raise NotImplementedError

    def classify(self, read: jax.Array, drop: Any) -> jax.Array:
        raise NotImplementedError


class BertForSequenceClassification(Classifier):
    """BERT's head: a pooler, which is trained with the encoder, and a linear layer."""

    def make_head(self, s, rngs):
        getattr(self, self.base).pooler = nnx.Dict(dense=nnx.Linear(s.width, s.width, rngs=rngs))
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)

    def classify(self, first, drop):
        return self.classifier(drop(jnp.tanh(getattr(self, self.base).pooler.dense(first))))


class RobertaForSequenceClassification(Classifier):
    """The head of RoBERTa and XLM-R: two layers."""

    def make_head(self, s, rngs):
        dense, out_proj = nnx.Linear(s.width, s.width, rngs=rngs), nnx.Linear(s.width, s.outputs, rngs=rngs)
        self.classifier = nnx.Dict(dense=dense, out_proj=out_proj)

    def classify(self, first, drop):
        hidden = jnp.tanh(self.classifier.dense(drop(first)))
        return self.classifier.out_proj(drop(hidden))


class ElectraForSequenceClassification(RobertaForSequenceClassification):
    """ELECTRA's head is RoBERTa's with another activation."""

    def classify(self, first, drop):
        hidden = jax.nn.gelu(self.classifier.dense(drop(first)), approximate=False)
        return self.classifier.out_proj(drop(hidden))


class DistilBertForSequenceClassification(Classifier):
    """DistilBERT's head: two layers; it has no types of tokens."""

    def make_head(self, s, rngs):
        self.pre_classifier = nnx.Linear(s.width, s.width, rngs=rngs)
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)

    def classify(self, first, drop):
        return self.classifier(drop(jax.nn.relu(self.pre_classifier(first))))


class EncoderForTokenClassification(Classifier):
    """The head of all of them for tokens: a linear layer. No pooler is within."""

    class_ending = "ForTokenClassification"
    every_token = True

    def make_head(self, s, rngs):
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)

    def classify(self, every, drop):
        return self.classifier(drop(every))


class EncoderForQuestionAnswering(Classifier):
    """The head of all of them for questions: a linear layer with two outputs, float32 [batch, length, 2]: the
    scores of each token as the answer's first and as its last. No pooler is within."""

    class_ending = "ForQuestionAnswering"
    every_token = True

    def make_head(self, s, rngs):
        self.qa_outputs = nnx.Linear(s.width, s.outputs, rngs=rngs)

    def classify(self, every, drop):
        return self.qa_outputs(drop(every))


class Choices(Classifier):
    """Reads integers [batch, choices, length], each choice by itself, and scores it: logits, float32 [batch,
    choices]. A choice that is all padding has a score as well, which means nothing."""

    class_ending = "ForMultipleChoice"

    def __call__(self, input_ids, attention_mask, token_type_ids=None, rngs=None):
        read = (input_ids, attention_mask, token_type_ids)
        each = (None if ids is None else ids.reshape(-1, ids.shape[-1]) for ids in read)
        return super().__call__(*each, rngs).reshape(input_ids.shape[:-1])


class BertForMultipleChoice(Choices, BertForSequenceClassification):
    """The head of BERT, RoBERTa and XLM-R for choices: a pooler, and a linear layer with one output."""


class DistilBertForMultipleChoice(Choices, DistilBertForSequenceClassification):
    """DistilBERT's head for choices: two layers, of which the last has one output."""


class ElectraForMultipleChoice(Choices):
    """ELECTRA's head for choices: two layers, of which the last has one output."""

    def make_head(self, s, rngs):
        self.sequence_summary = nnx.Dict(summary=nnx.Linear(s.width, s.width, rngs=rngs))
        self.classifier = nnx.Linear(s.width, s.outputs, rngs=rngs)

    def classify(self, first, drop):
        hidden = jax.nn.gelu(self.sequence_summary.summary(first), approximate=False)
        return self.classifier(drop(hidden))


class Masked(Classifier):
    """Finds hidden tokens: a dense layer with a norm reads what the encoder makes of some places, and a
    product with the table of tokens gives logits, float32 [batch, places, vocabulary].

    `places`, integers [batch, places], are negative where there is none; the logits there mean nothing. Left
    out, they are all. The product is most of the work of a small model, and 15% of the places are hidden.
    """

    class_ending = MASKED

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        require_tied(config)
        self.dtype, self.vocabulary = dtype, config.vocab_size
        super().__init__(config, dtype=dtype, gradient_checkpointing=gradient_checkpointing, rngs=rngs)

    def __call__(self, input_ids, attention_mask, token_type_ids=None, places=None, rngs=None):
        hidden = getattr(self, self.base)(input_ids, attention_mask, token_type_ids, rngs)
        if places is not None:
            hidden = jnp.take_along_axis(hidden, jnp.maximum(places, 0)[..., None], axis=1)
        transformed, bias = self.transform(hidden)
        scores = vocabulary_scores(transformed, self.table(), self.dtype)
        return scores if bias is None else scores + bias[...]

    def table(self) -> nnx.Embed:
        return getattr(self, self.base).embeddings.word_embeddings

    def transform(self, hidden: jax.Array) -> tuple[jax.Array, nnx.Param | None]:
        """What is multiplied with the table, and what is added then."""
        raise NotImplementedError


class BertForMaskedLM(Masked):
    """BERT's head."""

    def make_head(self, s, rngs):
        norm = layer_norm(s.width, s.norm_epsilon, rngs=rngs)
        transform = nnx.Dict(dense=nnx.Linear(s.width, s.width, rngs=rngs), LayerNorm=norm)
        bias = nnx.Param(jnp.zeros(self.vocabulary))
        self.cls = nnx.Dict(predictions=nnx.Dict(transform=transform, bias=bias))
        self.activation = activation(s.activation)

    def transform(self, hidden):
        head = self.cls.predictions
        inner = self.activation(head.transform.dense(hidden))
        return head.transform.LayerNorm(inner), head.bias


class RobertaForMaskedLM(Masked):
    """The head of RoBERTa and XLM-R."""

    def make_head(self, s, rngs):
        norm = layer_norm(s.width, s.norm_epsilon, rngs=rngs)
        bias = nnx.Param(jnp.zeros(self.vocabulary))
        self.lm_head = nnx.Dict(dense=nnx.Linear(s.width, s.width, rngs=rngs), layer_norm=norm, bias=bias)

    def transform(self, hidden):
        inner = jax.nn.gelu(self.lm_head.dense(hidden), approximate=False)
        return self.lm_head.layer_norm(inner), self.lm_head.bias


class DistilBertForMaskedLM(Masked):
    """DistilBERT's head."""

    def make_head(self, s, rngs):
        self.vocab_transform = nnx.Linear(s.width, s.width, rngs=rngs)
        self.vocab_layer_norm = layer_norm(s.width, s.norm_epsilon, rngs=rngs)
        self.vocab_projector = nnx.Dict(bias=nnx.Param(jnp.zeros(self.vocabulary)))
        self.activation = activation(s.activation)

    def transform(self, hidden):
        inner = self.activation(self.vocab_transform(hidden))
        return self.vocab_layer_norm(inner), self.vocab_projector.bias


class ElectraForMaskedLM(Masked):
    """The head of ELECTRA's generator, which is as narrow as its tables."""

    def make_head(self, s, rngs):
        dense = nnx.Linear(s.width, s.embedding, rngs=rngs)
        norm = layer_norm(s.embedding, s.norm_epsilon, rngs=rngs)
        self.generator_predictions = nnx.Dict(dense=dense, LayerNorm=norm)
        self.generator_lm_head = nnx.Dict(bias=nnx.Param(jnp.zeros(self.vocabulary)))

    def transform(self, hidden):
        inner = jax.nn.gelu(self.generator_predictions.dense(hidden), approximate=False)
        return self.generator_predictions.LayerNorm(inner), self.generator_lm_head.bias
