"""ResNet (He et al. 2016, arXiv:1512.03385) as a classifier of pictures.

The statistics of its batch normalisation stay those of the checkpoint, in training as well: with those of the
batch, accumulated gradients would not be those of a large batch, and a row's answer would depend on its
neighbours.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models import resnet, vision
from triptych.models.resnet import BATCH_NORM_EPSILON, Convolution
from triptych.tensorflow.architectures.convnext import require_channels
from triptych.tensorflow.architectures.layers import activation
from triptych.tensorflow.architectures.pictures import ImageClassifier, make_head


class FrozenNorm(keras.layers.Layer):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) by statistics that do not change; weight
    and bias are trained."""

    def __init__(self, width: int):
        super().__init__(dtype="float32", name="normalization")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("weight", "bias", "running_mean", "running_var"), (width,)
        )
        shapes["num_batches_tracked"] = ()
        self.parts = {
            name: self.add_weight(shape=shape, name=name, trainable=name not in vision.STATISTICS)
            for name, shape in shapes.items()
        }
        self.built = True

    def call(self, hidden):
        weight, bias, mean, variance = (tf.convert_to_tensor(part) for part in [*self.parts.values()][:4])
        return (hidden - mean) * (weight * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)) + bias


class NormedConvolution(keras.layers.Layer):
    """A convolution, its norm, and an activation if there is one."""

    def __init__(self, c: Convolution, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)
        own = {"strides": c.stride, "padding": "valid", "use_bias": False, "name": "convolution"}
        convolution = keras.layers.Conv2D(c.outputs, c.size, **own, dtype=dtype)
        convolution.build((None, None, None, c.inputs))
        self.parts = {"convolution": convolution, "normalization": FrozenNorm(c.outputs)}
        self.half, self.activation = c.size // 2, activation(c.activation) if c.activation else None
        self.built = True

    def call(self, hidden):
        # Keras' own padding of a convolution with strides is uneven.
        hidden = padded(hidden, self.half)
        normed = self.parts["normalization"](self.parts["convolution"](hidden))
        return normed if self.activation is None else self.activation(normed)


class Layer(keras.layers.Layer):
    """Convolutions whose result is added to what they read, or to a convolution of it where sizes differ."""

    def __init__(self, parts: Mapping[str, Convolution], last: str, dtype: Any, name: str):
        super().__init__(dtype=dtype, autocast=False, name=name)
        self.parts = {
            part: NormedConvolution(convolution, dtype, part.replace(".", "_"))
            for part, convolution in parts.items()
        }
        self.activation, self.built = activation(last), True

    def call(self, hidden):
        read, change = hidden, hidden
        for name, part in self.parts.items():
            if name == "shortcut":
                read = part(hidden)
            else:
                change = part(change)
        return self.activation(read + change)


class ResNet(ImageClassifier):
    """Stages of layers and a head on the mean of all places. There is no dropout."""

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        s = self.settings = resnet.resnet_settings(config)
        self.parts = {
            "resnet.embedder.embedder": NormedConvolution(s.embedder, self.dtype_policy, "embedder")
        }
        for name, parts in s.layers.items():
            own = self.dtype_policy, name.replace(".", "_")
            self.parts[f"resnet.{name}"] = Layer(parts, s.activation, *own)
        self.parts["classifier.1"] = make_head(s.width, s.outputs, name="classifier")

    def classify(self, pixels, training):
        require_channels(pixels, self.settings.channels)
        first, *layers, head = self.parts.values()
        hidden = padded(first(pixels), 1, value=tf.float32.min)
        hidden = tf.nn.max_pool2d(hidden, 3, 2, "VALID")
        for layer in layers:
            hidden = self.run(partial(layer), hidden)
        return head(tf.reduce_mean(hidden, axis=(1, 2)))


def padded(hidden: tf.Tensor, by: int, value: float = 0.0) -> tf.Tensor:
    """Pictures [rows, height, width, channels] with more places on each side."""
    return tf.pad(hidden, [[0, 0], [by, by], [by, by], [0, 0]], constant_values=value) if by else hidden
