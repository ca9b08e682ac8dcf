"""ResNet (He et al. 2016, arXiv:1512.03385) as a classifier of pictures.

The statistics of its batch normalisation stay those of the checkpoint, in training as well: with those of the
batch, accumulated gradients would not be those of a large batch, and a row's answer would depend on its
neighbours. Parts have the names that they have in files, points within included.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import activation, run_layer
from triptych.models import resnet, vision
from triptych.models.resnet import BATCH_NORM_EPSILON, Convolution


class FrozenNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) by statistics that do not change; weight
    and bias are trained."""

    def __init__(self, width: int):
        self.weight, self.bias = nnx.Param(jnp.ones(width)), nnx.Param(jnp.zeros(width))
        self.running_mean, self.running_var = nnx.BatchStat(jnp.zeros(width)), nnx.BatchStat(jnp.ones(width))
        self.num_batches_tracked = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, hidden):
        scale = self.weight[...] * jax.lax.rsqrt(self.running_var[...] + BATCH_NORM_EPSILON)
        return (hidden.astype(jnp.float32) - self.running_mean[...]) * scale + self.bias[...]


class NormedConvolution(nnx.Module):
    """A convolution, its norm, and an activation if there is one."""

    def __init__(self, c: Convolution, *, dtype: Any, rngs: nnx.Rngs):
        half = c.size // 2
        own = {"strides": (c.stride, c.stride), "padding": 2 * ((half, half),), "use_bias": False}
        self.convolution = nnx.Conv(c.inputs, c.outputs, (c.size, c.size), **own, dtype=dtype, rngs=rngs)
        self.normalization = FrozenNorm(c.outputs)
        self.activation = activation(c.activation) if c.activation else lambda hidden: hidden

    def __call__(self, hidden):
        return self.activation(self.normalization(self.convolution(hidden)))


class Layer(nnx.Module):
    """Convolutions whose result is added to what they read, or to a convolution of it where sizes differ."""

    def __init__(self, parts: Mapping[str, Convolution], last: str, *, dtype: Any, rngs: nnx.Rngs):
        for name, convolution in parts.items():
            setattr(self, name, NormedConvolution(convolution, dtype=dtype, rngs=rngs))
        self.names, self.activation = tuple(parts), activation(last)

    def __call__(self, hidden, rngs):
        read, change = hidden, hidden
        for name in self.names:
            if name == "shortcut":
                read = self.shortcut(hidden)
            else:
                change = getattr(self, name)(change)
        return self.activation(read + change)


class ResNetForImageClassification(nnx.Module):
    """Stages of layers and a head on the mean of all places; for the arguments see
    `vit.ViTForImageClassification`."""

    class_ending = vision.HEAD

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        s = self.settings = resnet.resnet_settings(config)
        self.checkpoint = gradient_checkpointing
        setattr(self, EMBEDDER, NormedConvolution(s.embedder, dtype=dtype, rngs=rngs))
        for name, parts in s.layers.items():
            setattr(self, f"resnet.{name}", Layer(parts, s.activation, dtype=dtype, rngs=rngs))
        setattr(self, "classifier.1", nnx.Linear(s.width, s.outputs, rngs=rngs))

    def __call__(self, pixel_values, rngs=None) -> jax.Array:
        """Logits, float32 [rows, labels], of pictures, float32 [rows, channels, height, width]. There is no
        dropout. InputError for other channels than the model reads."""
        vision.require_size(pixel_values.shape[1:], self.settings.channels, None)
        hidden = getattr(self, EMBEDDER)(pixel_values.transpose(0, 2, 3, 1))
        hidden = nnx.max_pool(hidden, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for name in self.settings.layers:
            layer = getattr(self, f"resnet.{name}")
            hidden = run_layer(layer, hidden, rngs=rngs, checkpoint=self.checkpoint)
        return getattr(self, "classifier.1")(hidden.mean(axis=(1, 2)))


EMBEDDER = "resnet.embedder.embedder"
