"""Runs the scripts and checks the claim of README.md.

    python test_claim.py

The last line printed is JSON: the command, a summary, the figures that are the same everywhere and those that
depend on the machine. The exit code is 1 if a bound is broken.
"""

import claim

SCRIPTS = {"summarization": "run_summarization_flax.py", "text-classification": "run_classification_flax.py"}

if __name__ == "__main__":
    claim.main(SCRIPTS, "flax_model.msgpack")
