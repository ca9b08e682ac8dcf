# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""XNLI: `run_classification.py` by the name under which people look for it.

    python run_xnli.py --model_name_or_path bert-base-multilingual-cased --language de \\
        --train_language en --do_train --do_eval --output_dir out

One script serves both, because XNLI is a dataset like others: `--language` alone says where its rows are, and
`--train_language` that the training rows are of another language.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("run_classification.py")), run_name="__main__")
