"""Models on KerasHub's layers, Hugging Face checkpoints in and out, and generation. Nothing here trains."""

import os

# TensorFlow would say at each start which instructions its build could also use, and transformers that there
# is no PyTorch.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
