"""What the forms know of a checkpoint without a tensor library: configuration, tokenizer, tensors."""
