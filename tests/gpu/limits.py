"""What the device can do: `python limits.py pytorch|flax SIDE`.

Prints JSON: floating-point operations per second of a product of square matrices with SIDE rows, in float32,
not in TensorFloat-32, and in bfloat16; the best of five.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial

REPEATS, PRODUCTS = 5, 8  # several products at once, lest the time to start one count
framework, side = sys.argv[1], int(sys.argv[2])


def fastest(compute: Callable[[], object]) -> float:
    compute()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        compute()
        times.append(time.perf_counter() - began)
    return min(times)


# Numbers drawn at random: a card multiplies ones with less power, and therefore faster.
products: dict[str, Callable[[], object]] = {}
if framework == "pytorch":
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def multiply(matrix: torch.Tensor) -> float:
        for _ in range(PRODUCTS):
            product = matrix @ matrix
        return product[0, 0].item()

    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        matrix = torch.randn(side, side, device=device).to(kind)
        products[name] = partial(multiply, matrix)
else:
    import jax
    import jax.numpy as jnp

    def multiply_all(matrix: jax.Array, matmul: Callable) -> None:
        for _ in range(PRODUCTS):
            product = matmul(matrix, matrix)
        product.block_until_ready()

    for name, precision in (("float32", "highest"), ("bfloat16", None)):
        matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(name)
        matmul = jax.jit(partial(jnp.matmul, precision=precision))
        products[name] = partial(multiply_all, matrix, matmul)

print(json.dumps({name: PRODUCTS * 2 * side**3 / fastest(compute) for name, compute in products.items()}))
