"""Optimizers of optax with the updates of torch.optim, and their state under PyTorch's names."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from triptych.flax import conversion
from triptych.models import tensor_files
from triptych.schedule import decays


def optimizer(args: Any) -> optax.GradientTransformation:
    """The optimizer that `--optim` names, without a learning rate: a step subtracts its updates times the
    rate."""
    weight_decay = optax.add_decayed_weights(
        args.weight_decay, mask=lambda parameters: jax.tree.map(lambda p: decays(p.shape), parameters)
    )
    if args.optim == "sgd":
        return optax.chain(optax.identity(), weight_decay)
    return optax.chain(optax.scale_by_adam(args.adam_beta1, args.adam_beta2, args.adam_epsilon), weight_decay)


def clip_by_global_norm(gradients: Any, max_norm: float) -> tuple[Any, jax.Array]:
    """Gradients scaled as torch.nn.utils.clip_grad_norm_ does (0: not scaled), and the norm they had."""
    norm = optax.global_norm(gradients)
    scale = jnp.minimum(1.0, max_norm / (norm + 1e-6)) if max_norm > 0 else 1.0
    return jax.tree.map(lambda gradient: gradient * scale, gradients), norm


def save_state(folder: Path, state: Any) -> None:
    """Writes `optimizer.safetensors`; see `tensor_files.write_optimizer`."""
    adam = state[0]
    if isinstance(adam, optax.ScaleByAdamState):
        moments = {"exp_avg": conversion.to_numpy(adam.mu), "exp_avg_sq": conversion.to_numpy(adam.nu)}
        tensor_files.write_optimizer(folder, moments, adam.count)
    else:
        tensor_files.write_optimizer(folder, {}, 0)


def load_state(folder: Path, state: Any) -> Any:
    """The state that `save_state`, of this form or another, has written, with the structure and the sharding
    of `state`."""
    adam = state[0]
    if not isinstance(adam, optax.ScaleByAdamState):
        return state
    moments, step = tensor_files.read_optimizer(folder)
    count = jax.device_put(jnp.asarray(step, adam.count.dtype), adam.count.sharding)
    mu = conversion.from_numpy(moments["exp_avg"], adam.mu)
    nu = conversion.from_numpy(moments["exp_avg_sq"], adam.nu)
    return (adam._replace(count=count, mu=mu, nu=nu), *state[1:])
