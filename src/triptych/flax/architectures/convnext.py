"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545) and ConvNeXt V2 (Woo et al. 2023, arXiv:2301.00808) as
classifiers of pictures. Parts have the names that they have in files, points within included."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.flax.architectures.layers import Patches, activation, drop, layer_norm, run_layer
from triptych.models import convnext, vision
from triptych.models.convnext import CONVNEXT_EPSILON, ConvNextSettings


class ResponseNorm(nnx.Module):
    """Each channel's response to the whole picture, by the mean of all channels."""

    def __init__(self, width: int):
        self.weight, self.bias = (nnx.Param(jnp.zeros((1, 1, 1, width))) for _ in range(2))

    def __call__(self, hidden):
        hidden = hidden.astype(jnp.float32)
        squares = jnp.square(hidden).sum(axis=(1, 2), keepdims=True)
        # Where a channel is 0 everywhere, the square root has no gradient.
        responses = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        normed = responses / (responses.mean(axis=-1, keepdims=True) + 1e-6)
        return self.weight[...] * (hidden * normed) + self.bias[...] + hidden


class Layer(nnx.Module):
    """Each channel convolved by itself, and a dense part, added to what was read."""

    def __init__(self, s: ConvNextSettings, width: int, rate: float, *, dtype: Any, rngs: nnx.Rngs):
        own = {"padding": ((3, 3), (3, 3)), "feature_group_count": width, "dtype": dtype}
        self.dwconv = nnx.Conv(width, width, (7, 7), **own, rngs=rngs)
        self.layernorm = layer_norm(width, CONVNEXT_EPSILON, rngs=rngs)
        self.pwconv1 = nnx.Linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.pwconv2 = nnx.Linear(4 * width, width, dtype=dtype, rngs=rngs)
        self.grn = ResponseNorm(4 * width) if s.response_norm else None
        self.layer_scale_parameter = nnx.Param(jnp.ones(width)) if s.scaled else None
        self.activation, self.path_dropout = activation(s.activation), nnx.Dropout(rate)

    def __call__(self, hidden, rngs):
        inner = self.activation(self.pwconv1(self.layernorm(self.dwconv(hidden))))
        change = self.pwconv2(inner if self.grn is None else self.grn(inner))
        if self.layer_scale_parameter is not None:
            change = self.layer_scale_parameter[...] * change
        return hidden + drop(change.astype(jnp.float32), self.path_dropout, rngs, whole_rows=True)


class ConvNextForImageClassification(nnx.Module):
    """Stages of layers, each but the first at half the height and width, and a head on the mean of all
    places; for the arguments see `vit.ViTForImageClassification`."""

    class_ending = vision.HEAD

    def __init__(self, config, *, dtype=jnp.float32, gradient_checkpointing=False, rngs):
        s = self.settings = convnext.convnext_settings(config)
        self.checkpoint, width = gradient_checkpointing, s.widths[0]
        patches = {"dtype": dtype, "rngs": rngs}
        parts = {
            "embeddings.patch_embeddings": Patches(s.channels, width, s.patch, **patches),
            "embeddings.layernorm": layer_norm(width, CONVNEXT_EPSILON, rngs=rngs),
            "layernorm": layer_norm(s.widths[-1], s.norm_epsilon, rngs=rngs),
        }
        for stage, (before, after) in enumerate(zip(s.widths, s.widths[1:], strict=False), start=1):
            name = f"encoder.stages.{stage}.downsampling_layer"
            parts[f"{name}.0"] = layer_norm(before, CONVNEXT_EPSILON, rngs=rngs)
            parts[f"{name}.1"] = Patches(before, after, (2, 2), **patches)
        for name, (stage, rate) in s.layers.items():
            parts[name] = Layer(s, s.widths[stage], rate, dtype=dtype, rngs=rngs)
        for name, part in parts.items():
            setattr(self, f"{s.base}.{name}", part)
        self.classifier = nnx.Linear(s.widths[-1], s.outputs, rngs=rngs)

    def __call__(self, pixel_values, rngs=None) -> jax.Array:
        """Logits, float32 [rows, labels], of pictures, float32 [rows, channels, height, width]. `rngs` draws
        dropout ("dropout"), if given. InputError for other channels than the model reads."""
        s = self.settings
        vision.require_size(pixel_values.shape[1:], s.channels, None)
        hidden = self.part("embeddings.patch_embeddings")(pixel_values.transpose(0, 2, 3, 1))
        hidden, now = self.part("embeddings.layernorm")(hidden), 0
        for name, (stage, _) in s.layers.items():
            if stage > now:
                halve = f"encoder.stages.{stage}.downsampling_layer"
                hidden = self.part(f"{halve}.1")(self.part(f"{halve}.0")(hidden)).astype(jnp.float32)
                now = stage
            hidden = run_layer(self.part(name), hidden, rngs=rngs, checkpoint=self.checkpoint)
        return self.classifier(self.part("layernorm")(hidden.mean(axis=(1, 2))))

    def part(self, name: str) -> Any:
        return getattr(self, f"{self.settings.base}.{name}")
