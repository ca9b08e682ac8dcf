"""Models of KerasHub, Hugging Face checkpoints in and out, generation, optimizers. Nothing here trains."""
