"""What classifiers of pictures share: their call, patches, how a layer adds."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf

from triptych.models import vision
from triptych.tensorflow.architectures.layers import Model


class ImageClassifier(Model):
    """A backbone and heads. Parts have Hugging Face's names, and are layers, perhaps with parts of their own,
    or variables.

    Pictures are turned to have their channels last, because TensorFlow convolves no others on a CPU.
    """

    class_ending = vision.HEAD
    parts: dict[str, Any]

    def __init__(self, config: Any, dtype: str = "float32"):
        super().__init__(config, dtype)
        self.autocast = False  # Pixels and the model's own variables stay float32.

    def call(
        self, inputs: dict[str, tf.Tensor], training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits, float32 [rows, labels].

        Args:
            inputs: `pixel_values`, float32 [rows, channels, height, width].
            training: whether to apply dropout, at the configuration's rates.
            seed: an int32 scalar that decides what is dropped; a random one if None.

        Raises:
            InputError: for pictures of a size that the model cannot read.
        """
        if training:
            self.start_dropout(seed)
        return self.classify(tf.transpose(inputs["pixel_values"], (0, 2, 3, 1)), training)

    def classify(self, pixels: tf.Tensor, training: bool) -> tf.Tensor:
        """Logits of pictures [rows, height, width, channels]; see `call`."""
        raise NotImplementedError


class Patches(keras.layers.Layer):
    """A convolution whose patches neither overlap nor leave gaps: a product of matrices.

    Its kernel has [height * width * channels, width] numbers.
    """

    def __init__(self, channels: int, width: int, size: vision.Size, dtype: Any, name: str):
        super().__init__(dtype=dtype, name=name)
        self.full_shape = (*size, channels, width)  # of the convolution's kernel
        self.kernel = self.add_weight(shape=(size[0] * size[1] * channels, width), name="kernel")
        self.bias = self.add_weight(shape=(width,), name="bias")
        self.built = True

    def call(self, pixels):
        """[rows, height, width, channels] as [rows, patches down, patches across, width]. What is beyond the
        last whole patch is not read."""
        tall, wide, channels, width = self.full_shape
        down, across = pixels.shape[1] // tall, pixels.shape[2] // wide
        pixels = pixels[:, : down * tall, : across * wide]
        parts = tf.reshape(pixels, (-1, down, tall, across, wide, channels))
        parts = tf.reshape(tf.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, self.kernel.shape[0]))
        product = tf.matmul(parts, tf.convert_to_tensor(self.kernel)) + self.bias
        return tf.reshape(product, (-1, down, across, width))


def norm_of(width: int, epsilon: float, name: str) -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(epsilon=epsilon, dtype="float32", name=name)
    layer.build((None, width))
    return layer


def dense(inputs: int, outputs: int, dtype: Any, name: str, use_bias: bool = True) -> keras.layers.Dense:
    layer = keras.layers.Dense(outputs, use_bias=use_bias, dtype=dtype, name=name.replace(".", "_"))
    layer.build((None, inputs))
    return layer


def path_dropout(rate: float, axes: int) -> keras.layers.Dropout:
    """Dropout of all of a row or of nothing (stochastic depth, Huang et al. 2016, arXiv:1603.09382)."""
    return keras.layers.Dropout(rate, noise_shape=(None, *[1] * (axes - 1)), dtype="float32")


make_head = partial(dense, dtype="float32")
