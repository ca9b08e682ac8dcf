"""ViT (Dosovitskiy et al. 2021, arXiv:2010.11929), DeiT (Touvron et al. 2021, arXiv:2012.12877) and DINOv2
(Oquab et al. 2024, arXiv:2304.07193) as classifiers of pictures.

Parts have the names that they have in files, points within included.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import Fixed, Patches, activation, attend, drop, layer_norm, run_layer
from triptych.models import vision, vit
from triptych.models.vit import ViTSettings


class Layer(nnx.Module):
    """Attention of all patches and a dense part, each added to what it read, with norms before."""

    def __init__(self, s: ViTSettings, *, dtype: Any, rngs: nnx.Rngs):
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        norm = partial(layer_norm, s.width, s.norm_epsilon, rngs=rngs)
        parts = {name: linear(s.width, s.width, use_bias=s.biases) for name in ("query", "key", "value")}
        parts |= {"attended": linear(s.width, s.width), "first_norm": norm(), "second_norm": norm()}
        parts |= {"inner": linear(s.width, s.inner * (1 + s.gated)), "outer": linear(s.inner, s.width)}
        if s.scaled:
            scales = ("first_scale", "second_scale")
            parts |= {name: nnx.Param(jnp.ones(s.width)) for name in scales}
        for name, part in parts.items():
            setattr(self, s.names[name], part)
        self.settings, self.activation = s, activation(s.activation)
        rates = 0.0 if s.scaled else s.dropout, s.attention_dropout, s.path_dropout
        self.dropout, self.attention_dropout, self.path_dropout = map(nnx.Dropout, rates)

    def __call__(self, hidden, rngs):
        hidden = self.add(hidden, self.attend(self.part("first_norm")(hidden), rngs), "first_scale", rngs)
        return self.add(hidden, self.dense(self.part("second_norm")(hidden)), "second_scale", rngs)

    def part(self, name: str) -> Any:
        return getattr(self, self.settings.names[name])

    def attend(self, read, rngs):
        by_head = (*read.shape[:2], self.settings.heads, -1)
        query, key, value = (self.part(name)(read).reshape(by_head) for name in ("query", "key", "value"))
        mixed = attend(query * query.shape[-1] ** -0.5, (key, value), 0.0, self.attention_dropout, rngs)
        return self.part("attended")(mixed.reshape(read.shape))

    def dense(self, read):
        inner = self.part("inner")(read)
        if not self.settings.gated:
            return self.part("outer")(self.activation(inner))
        gate, inner = jnp.split(inner, 2, axis=-1)
        return self.part("outer")(self.activation(gate) * inner)

    def add(self, hidden, change, scale, rngs):
        change = drop(change, self.dropout, rngs)
        if self.settings.scaled:
            change = change * self.part(scale)[...]
        return hidden + drop(change, self.path_dropout, rngs, whole_rows=True)


class ViTForImageClassification(nnx.Module):
    """Layers on the patches of a picture and a token before them, which the head reads; that of DINOv2 reads
    the mean of the patches as well.

    Args:
        config: of transformers.
        dtype: of the products of matrices within; parameters, residuals, norms, softmax, and the head are
            float32.
        gradient_checkpointing: whether gradients compute each layer's activations anew, which saves memory.
        rngs: not used: `conversion.load` gives the parameters.
    """

    class_ending = vision.HEAD
    heads: tuple[str, ...] = ("classifier",)  # by the token that each reads

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        s = self.settings = vit.vit_settings(config)
        self.checkpoint, self.dropout = gradient_checkpointing, nnx.Dropout(s.dropout)
        places = len(s.tokens) + math.prod(s.grid)
        parts = {f"embeddings.{token}": nnx.Param(jnp.zeros((1, 1, s.width))) for token in s.tokens}
        parts |= {
            vision.POSITIONS: nnx.Param(jnp.zeros((1, places, s.width))),
            "embeddings.patch_embeddings.projection": Patches(
                s.channels, s.width, s.patch, dtype=dtype, rngs=rngs
            ),
            "encoder.layer": nnx.List(Layer(s, dtype=dtype, rngs=rngs) for _ in range(s.layers)),
            "layernorm": layer_norm(s.width, s.norm_epsilon, rngs=rngs),
        }
        if s.masks:
            parts["embeddings.mask_token"] = Fixed(jnp.zeros((1, s.width)))
        for name, part in parts.items():
            setattr(self, f"{s.base}.{name}", part)
        for name in self.heads:
            setattr(self, name, nnx.Linear(s.width * (1 + s.averages), s.outputs, rngs=rngs))

    def __call__(self, pixel_values, rngs=None) -> jax.Array:
        """Logits, float32 [rows, labels], of pictures, float32 [rows, channels, height, width]. `rngs` draws
        dropout ("dropout"), if given. InputError for pictures of a size that the model has no positions
        for."""
        hidden = self.embed(pixel_values)
        hidden = drop(hidden, self.dropout, rngs)
        for layer in self.part("encoder.layer"):
            hidden = run_layer(layer, hidden, rngs=rngs, checkpoint=self.checkpoint)
        hidden = self.part("layernorm")(hidden)
        logits = [getattr(self, name)(self.read(hidden, place)) for place, name in enumerate(self.heads)]
        return sum(logits) / len(logits)

    def part(self, name: str) -> Any:
        return getattr(self, f"{self.settings.base}.{name}")

    def embed(self, pixel_values: jax.Array) -> jax.Array:
        """Tokens and patches with their positions, float32 [rows, tokens + patches, width]."""
        s = self.settings
        vision.require_size(pixel_values.shape[1:], s.channels, None if s.resizes else s.picture)
        patches = self.part("embeddings.patch_embeddings.projection")(pixel_values.transpose(0, 2, 3, 1))
        grid, rows = patches.shape[1:3], len(patches)
        tokens = [
            jnp.broadcast_to(self.part(f"embeddings.{token}")[...], (rows, 1, s.width)) for token in s.tokens
        ]
        hidden = jnp.concatenate((*tokens, patches.reshape(rows, -1, s.width)), axis=1)
        return hidden + self.positions(grid)

    def positions(self, grid: vision.Size) -> jax.Array:
        """Those of tokens, and of patches that form a grid, float32 [1, tokens + patches, width]."""
        s, table = self.settings, self.part(vision.POSITIONS)[...]
        if grid == s.grid:
            return table
        down, across = (vision.resizing(*each) for each in zip(s.grid, grid, strict=True))
        special = len(s.tokens)
        square = table[0, special:].reshape(*s.grid, s.width)
        fitted = jnp.einsum("ah,bw,hwc->abc", down, across, square).reshape(1, -1, s.width)
        return jnp.concatenate((table[:, :special], fitted), axis=1)

    def read(self, hidden: jax.Array, place: int) -> jax.Array:
        """What a head reads, [rows, width] or, with the mean of the patches, [rows, twice the width]."""
        if not self.settings.averages:
            return hidden[:, place]
        return jnp.concatenate((hidden[:, place], hidden[:, 1:].mean(axis=1)), axis=-1)


class DeiTForImageClassificationWithTeacher(ViTForImageClassification):
    """DeiT with a second head, which reads the token that learnt from a teacher: logits are the mean of
    both."""

    class_ending = vision.WITH_TEACHER
    heads = ("cls_classifier", "distillation_classifier")
