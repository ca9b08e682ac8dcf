"""Swin (Liu et al. 2021, arXiv:2103.14030) as a classifier of pictures. Parts have the names that they have
in files, points within included."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import Patches, activation, attend, drop, layer_norm, run_layer
from triptych.models import swin, vision
from triptych.models.swin import SWIN_EPSILON, SWIN_NAMES, SwinLayer, SwinSettings


class Layer(nnx.Module):
    """Attention within windows and a dense part, each added to what it read, with norms before."""

    def __init__(self, s: SwinSettings, own: SwinLayer, *, dtype: Any, rngs: nnx.Rngs):
        width, inner = own.width, int(own.width * s.ratio)
        linear = partial(nnx.Linear, dtype=dtype, rngs=rngs)
        norm = partial(layer_norm, width, s.norm_epsilon, rngs=rngs)
        parts = {name: linear(width, width, use_bias=s.biases) for name in ("query", "key", "value")}
        parts |= {"attended": linear(width, width), "first_norm": norm(), "second_norm": norm()}
        parts |= {"inner": linear(width, inner), "outer": linear(inner, width)}
        parts["distances"] = nnx.Param(jnp.zeros(((2 * s.window - 1) ** 2, own.heads)))
        for name, part in parts.items():
            setattr(self, SWIN_NAMES[name], part)
        self.own, self.window, self.activation = own, s.window, activation(s.activation)
        rates = s.dropout, s.attention_dropout, own.path_dropout
        self.dropout, self.attention_dropout, self.path_dropout = map(nnx.Dropout, rates)

    def __call__(self, hidden, rngs):
        """`hidden` float32 [rows, height, width, channels]."""
        change = drop(
            self.attend(self.part("first_norm")(hidden), rngs), self.path_dropout, rngs, whole_rows=True
        )
        hidden = hidden + change
        change = self.part("outer")(self.activation(self.part("inner")(self.part("second_norm")(hidden))))
        return hidden + drop(change, self.dropout, rngs)

    def part(self, name: str) -> Any:
        return getattr(self, SWIN_NAMES[name])

    def attend(self, read, rngs):
        rows, tall, wide, channels = read.shape
        window, heads = self.window, self.own.heads
        (down, across), shift, apart = swin.windows((tall, wide), window, self.own.shifted)
        padded = jnp.pad(read, ((0, 0), (0, down - tall), (0, across - wide), (0, 0)))
        cut = jnp.roll(padded, (-shift, -shift), axis=(1, 2))
        cut = cut.reshape(rows, down // window, window, across // window, window, channels).swapaxes(2, 3)
        cut = cut.reshape(-1, window**2, channels)
        query, key, value = (
            self.part(name)(cut).reshape(*cut.shape[:2], heads, -1) for name in ("query", "key", "value")
        )
        bias = self.part("distances")[...][swin.distances(window)]
        bias = bias.reshape(window**2, window**2, heads).transpose(2, 0, 1)
        if apart is not None:  # for each window of each row
            bias = jnp.tile((bias + apart[:, None]), (rows, 1, 1, 1))
        scaled = query * query.shape[-1] ** -0.5
        mixed = attend(scaled, (key, value), bias, self.attention_dropout, rngs).reshape(cut.shape)
        mixed = drop(self.part("attended")(mixed), self.dropout, rngs)
        whole = mixed.reshape(rows, down // window, across // window, window, window, channels)
        whole = whole.swapaxes(2, 3).reshape(padded.shape)
        return jnp.roll(whole, (shift, shift), axis=(1, 2))[:, :tall, :wide]


class Halving(nnx.Module):
    """Four neighbours become one place of twice the width."""

    def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.norm = layer_norm(4 * width, SWIN_EPSILON, rngs=rngs)
        self.reduction = nnx.Linear(4 * width, 2 * width, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, hidden):
        hidden = jnp.pad(hidden, ((0, 0), (0, hidden.shape[1] % 2), (0, hidden.shape[2] % 2), (0, 0)))
        four = [hidden[:, down::2, across::2] for across in range(2) for down in range(2)]
        return self.reduction(self.norm(jnp.concatenate(four, axis=-1))).astype(jnp.float32)


class SwinForImageClassification(nnx.Module):
    """Stages of layers, each but the first at half the height and width, and a head on the mean of all
    places; for the arguments see `vit.ViTForImageClassification`."""

    class_ending = vision.HEAD

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        s = self.settings = swin.swin_settings(config)
        self.checkpoint, self.dropout = gradient_checkpointing, nnx.Dropout(s.dropout)
        parts = {
            "embeddings.patch_embeddings.projection": Patches(
                s.channels, s.width, s.patch, dtype=dtype, rngs=rngs
            ),
            "embeddings.norm": layer_norm(s.width, SWIN_EPSILON, rngs=rngs),
            "layernorm": layer_norm(s.last_width, s.norm_epsilon, rngs=rngs),
        }
        if s.positions:
            parts[vision.POSITIONS] = nnx.Param(jnp.zeros((1, math.prod(s.grid), s.width)))
        for stage, (name, layers) in enumerate(s.stages.items()):
            for of_layer, own in layers.items():
                parts[f"{name}.{of_layer}"] = Layer(s, own, dtype=dtype, rngs=rngs)
            if stage + 1 < len(s.stages):
                parts[f"{name}.downsample"] = Halving(s.width * 2**stage, dtype=dtype, rngs=rngs)
        for name, part in parts.items():
            setattr(self, f"swin.{name}", part)
        self.classifier = nnx.Linear(s.last_width, s.outputs, rngs=rngs)

    def __call__(self, pixel_values, rngs=None) -> jax.Array:
        """Logits, float32 [rows, labels], of pictures, float32 [rows, channels, height, width]. `rngs` draws
        dropout ("dropout"), if given. InputError for pictures that the model cannot read."""
        s = self.settings
        vision.require_size(pixel_values.shape[1:], s.channels, s.picture if s.positions else None)
        sides = zip(pixel_values.shape[2:], s.patch, strict=True)
        missing = [(0, -side % patch) for side, patch in sides]
        pixels = jnp.pad(pixel_values.transpose(0, 2, 3, 1), ((0, 0), *missing, (0, 0)))
        hidden = self.part("embeddings.norm")(self.part("embeddings.patch_embeddings.projection")(pixels))
        if s.positions:
            hidden = hidden + self.part(vision.POSITIONS)[...].reshape(1, *hidden.shape[1:])
        hidden = drop(hidden, self.dropout, rngs)
        for name, layers in s.stages.items():
            for of_layer in layers:
                layer = self.part(f"{name}.{of_layer}")
                hidden = run_layer(layer, hidden, rngs=rngs, checkpoint=self.checkpoint)
            if hasattr(self, f"swin.{name}.downsample"):
                hidden = self.part(f"{name}.downsample")(hidden)
        return self.classifier(self.part("layernorm")(hidden).mean(axis=(1, 2)))

    def part(self, name: str) -> Any:
        return getattr(self, f"swin.{name}")
