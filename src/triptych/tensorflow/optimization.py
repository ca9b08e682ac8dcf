"""Optimizers of Keras with the updates of torch.optim, and their state under PyTorch's names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from triptych.models import tensor_files
from triptych.run.state import RunState
from triptych.tensorflow import conversion, keras_private
from triptych.tensorflow.architectures import Model


def optimizer(model: Model, args: Any) -> "AdamW | SGD":
    """The optimizer that `--optim` names, for `model.trainable_variables`. Before each step set its
    `learning_rate`."""
    decay = [args.weight_decay if decays else 0.0 for decays in conversion.decayed(model)]
    if args.optim == "sgd":
        return SGD(model.trainable_variables, decay)
    details = {"betas": (args.adam_beta1, args.adam_beta2), "epsilon": args.adam_epsilon}
    return AdamW(model.trainable_variables, decay, skips_infinite=args.fp16, **details)


class AdamW(keras_private.TakesSums, keras.optimizers.Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), as torch.optim.AdamW.

    Keras adds epsilon before the second moment's bias is corrected, PyTorch after it. Each variable is
    updated by one fused operation. `apply` takes gradients that are summed over a strategy's devices already,
    as they must be when they are clipped.

    Args:
        variables: those whose gradients `apply` takes, in this order.
        decay: for each the weight decay.
        skips_infinite: leave out steps whose gradients are not finite, as with float16 they may be.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        decay: Sequence[float],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        skips_infinite: bool = False,
    ):
        super().__init__(learning_rate=0.0, beta_1=betas[0], beta_2=betas[1], epsilon=epsilon)
        self.decay, self.skips_infinite = list(decay), skips_infinite
        self.build(list(variables))

    def moments(self) -> dict[str, list[keras.Variable]]:
        """The state, for each variable in order, under PyTorch's names."""
        first, second = keras_private.moments(self)
        return {"exp_avg": first, "exp_avg_sq": second}

    def apply(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """One step."""
        # What all updates share is computed once: in each of them it would be most of the time that tracing
        # takes. The operation computes with betas of single precision, so the powers of just those, in
        # double, correct its moments; its own correction, all in single, is switched off by powers of 0.
        betas = [tf.constant(np.float32(beta)) for beta in (self.beta_1, self.beta_2)]
        step = tf.cast(self.iterations + 1, "float64")
        first, second = (1 - tf.cast(beta, "float64") ** step for beta in betas)
        rate, zero = tf.convert_to_tensor(self.learning_rate), tf.constant(0.0)
        self.kept = {decay: 1 - rate * decay for decay in set(self.decay) if decay}
        self.shared = {
            "lr": rate * tf.cast(tf.sqrt(second) / first, "float32"),
            "epsilon": tf.cast(self.epsilon * tf.sqrt(second), "float32"),
        } | {"beta1": betas[0], "beta2": betas[1], "beta1_power": zero, "beta2_power": zero}
        if self.skips_infinite:
            self.finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in grads])
        super().apply(grads, trainable_variables)
        if self.skips_infinite:
            self.iterations.assign_sub(1 - tf.cast(self.finite, self.iterations.dtype))

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = keras_private.index_of(self, variable)
        first, second = (of_all[index].value.handle for of_all in keras_private.moments(self))

        def change() -> tf.Tensor:
            if self.decay[index]:
                variable.assign(variable * self.kept[self.decay[index]])
            tf.raw_ops.ResourceApplyAdam(var=variable.handle, m=first, v=second, grad=gradient, **self.shared)
            return tf.constant(True)

        if self.skips_infinite:
            tf.cond(self.finite, change, lambda: tf.constant(False))
        else:
            change()


class SGD(keras_private.TakesSums, keras.optimizers.SGD):
    """Gradient descent as in torch.optim.SGD without momentum; arguments as of AdamW."""

    def __init__(self, variables: Sequence[keras.Variable], decay: Sequence[float]):
        super().__init__(learning_rate=0.0)
        self.decay = list(decay)
        self.build(list(variables))

    def moments(self) -> dict[str, list[keras.Variable]]:
        """No state."""
        return {}

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        decay = self.decay[keras_private.index_of(self, variable)]
        variable.assign_sub(learning_rate * (gradient + decay * variable if decay else gradient))


def clip_by_global_norm(gradients: Sequence[tf.Tensor], max_norm: float) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Gradients scaled as torch.nn.utils.clip_grad_norm_ does (0: not scaled), and the norm they had.

    Sparse gradients of embeddings become dense; the norm of their rows, not yet summed by token, is another.
    """
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    norm = tf.linalg.global_norm(gradients)
    if max_norm <= 0:
        return gradients, norm
    scale = tf.minimum(1.0, max_norm / (norm + 1e-6))
    return [gradient * scale for gradient in gradients], norm


class LossScale:
    """The factor that keeps float16 gradients from vanishing, by the rule of torch.amp.GradScaler: half of it
    after a step whose gradients were not finite, twice after 2000 steps without such a one. 1 if not `used`.

    Args:
        state: of the run, in which it is kept.
    """

    def __init__(self, used: bool, state: RunState):
        self.used, self.state = used, state
        self.value, steps = state.loss_scale or (2.0**16 if used else 1.0, 0)
        self.steps = int(steps)

    def update(self, finite: bool) -> None:
        """Takes note of a step."""
        if not self.used:
            return
        self.steps = self.steps + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.steps == 2000:
            self.value, self.steps = self.value * 2, 0
        self.state.loss_scale = [self.value, self.steps]


def save_state(folder: Path, optimizer: AdamW | SGD, model: Model) -> None:
    """Writes `optimizer.safetensors`; see `tensor_files.write_optimizer`."""
    moments = {kind: conversion.to_numpy(model, values) for kind, values in optimizer.moments().items()}
    tensor_files.write_optimizer(folder, moments, keras.ops.convert_to_numpy(optimizer.iterations))


def load_state(folder: Path, optimizer: AdamW | SGD, model: Model) -> None:
    """Gives an optimizer the state that `save_state`, of this form or another, wrote."""
    moments, step = tensor_files.read_optimizer(folder)
    for kind, variables in optimizer.moments().items():
        for variable, value in zip(variables, conversion.from_numpy(model, moments[kind]), strict=True):
            variable.assign(value)
    optimizer.iterations.assign(step)
