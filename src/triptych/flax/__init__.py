"""Models in flax.nnx, Hugging Face checkpoints in and out, and generation. Nothing here trains."""

import os

# transformers would say at each start that there is no PyTorch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
