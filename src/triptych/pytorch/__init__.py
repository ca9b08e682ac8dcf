"""The part of the package that only the PyTorch scripts use."""
