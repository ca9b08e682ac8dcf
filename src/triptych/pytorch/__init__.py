"""What only the PyTorch scripts need."""
