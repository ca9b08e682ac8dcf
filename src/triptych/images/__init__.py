"""Pictures, from files to arrays: decoding, what a checkpoint does to them, augmentation, mixing, batches."""
