"""Models on KerasHub's layers, Hugging Face checkpoints in and out, and generation. Nothing here trains."""

import os

# At each start TensorFlow would name the instructions that its build does not use, and transformers would
# say that there is no PyTorch.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
