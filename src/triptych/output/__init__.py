"""The output folder: checkpoints, results, pictures, and what in it is the run's own."""
