# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[tensorflow]"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""SWAG and its like: `run_multiple_choice.py` by the name under which people look for it.

    python run_swag.py --model_name_or_path google-bert/bert-base-uncased \\
        --dataset_name allenai/swag --do_train --do_eval --output_dir out

One script serves both, because a dataset of choices is like others: the columns tell which of them are the
choices, see `triptych.data.choice_columns`.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("run_multiple_choice.py")), run_name="__main__")
