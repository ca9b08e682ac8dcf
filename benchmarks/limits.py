"""What the machine can do, by a framework's own operations: `python limits.py pytorch|tensorflow|flax`.

Prints JSON: floating-point operations per second of a product of large square matrices, in float32 and in
bfloat16, and bytes per second of copying memory (reading and writing both count): the best of five.
"""

import json
import sys
import time
from collections.abc import Callable

SIDE, REPEATS = 2048, 5
COPIED = 64 * 2**20  # numbers of float32, more than any cache holds


def fastest(compute: Callable[[], object]) -> float:
    compute()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return min(times)


framework = sys.argv[1]
products: dict[str, Callable[[], object]] = {}
if framework == "pytorch":
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"

    def ended(tensor: torch.Tensor) -> float:
        return tensor.view(-1)[0].item()

    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        matrix = torch.ones(SIDE, SIDE, dtype=kind, device=device)
        products[name] = lambda matrix=matrix: ended(matrix @ matrix)
    source = torch.ones(COPIED, device=device)
    target = torch.empty_like(source)
    products["copy"] = lambda: ended(target.copy_(source))
elif framework == "tensorflow":
    import tensorflow as tf

    for name in ("float32", "bfloat16"):
        matrix = tf.ones((SIDE, SIDE), name)
        products[name] = lambda matrix=matrix: tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
    source = tf.Variable(tf.ones(COPIED))
    products["copy"] = lambda: (source + 0)[0].numpy()
else:
    import jax
    import jax.numpy as jnp

    multiply, copy = jax.jit(jnp.matmul), jax.jit(jnp.copy)
    for name in ("float32", "bfloat16"):
        matrix = jnp.ones((SIDE, SIDE), name)
        products[name] = lambda matrix=matrix: multiply(matrix, matrix).block_until_ready()
    source = jnp.ones(COPIED)
    products["copy"] = lambda: copy(source).block_until_ready()

work = {"float32": 2 * SIDE**3, "bfloat16": 2 * SIDE**3, "copy": 8 * COPIED}
print(json.dumps({name: work[name] / fastest(compute) for name, compute in products.items()}))
