"""The fixtures of this suite; see tests/fixtures/pytorch_answers.py."""

import os

from pytorch_answers import (
    ask_pytorch,
    batch,
    classifier,
    continuing,
    decoder,
    long_batch,
    made,
    made_decoders,
    made_pictures,
    packed,
    picture,
    prompts,
    texts,
    trained,
    variant,
)

__all__ = [
    "ask_pytorch",
    "batch",
    "classifier",
    "continuing",
    "decoder",
    "long_batch",
    "made",
    "made_decoders",
    "made_pictures",
]
__all__ += ["packed", "picture", "prompts", "texts", "trained", "variant"]

# Compiling is most of these tests' time, and what is compiled runs for milliseconds.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
