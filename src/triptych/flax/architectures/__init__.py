"""A file for each architecture; attributes have Hugging Face's names, by which checkpoints load and save."""
