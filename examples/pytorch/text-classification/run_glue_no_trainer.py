# /// script
# requires-python = ">=3.11"
# dependencies = ["triptych[pytorch]", "scikit-learn>=1.6,<2"]
# [tool.uv.sources]
# triptych = { path = "../../.." }
# ///
"""A task of GLUE: `run_classification_no_trainer.py` by the name under which people look for it.

    python run_glue_no_trainer.py --model_name_or_path google-bert/bert-base-uncased --task_name mrpc \\
        --do_train --do_eval --do_predict --output_dir out

One script serves both, because a task of GLUE is a dataset like others: `--task_name` says where its rows
are, which columns hold the texts, and which metrics are usual, all in the table `triptych.data.glue.TASKS`.
"""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).with_name("run_classification_no_trainer.py")), run_name="__main__")
