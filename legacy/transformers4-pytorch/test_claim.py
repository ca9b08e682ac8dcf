"""Runs the scripts and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
"""

import claim

SCRIPTS = {"summarization": "run_summarization_pytorch.py", "text-classification": "run_classification_pytorch.py"}

if __name__ == "__main__":
    # One batch, whose mean loss is that of all targets
    claim.main(SCRIPTS, "model.safetensors", "--per_device_eval_batch_size", "200")
