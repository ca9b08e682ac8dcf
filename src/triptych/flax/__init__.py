"""Models in flax.nnx, Hugging Face checkpoints in and out, and generation. Nothing here trains."""

import os

# At each start transformers would say that there is no PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
