"""The run that most tests look at."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, SECRET, Form, Run, flags

# By its path: with tests/ among the places to look for modules, tests/tensorflow could be taken for one.
specification = importlib.util.spec_from_file_location("hub", ROOT / "tests/hub.py")
sys.modules["hub"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(sys.modules["hub"])


@pytest.fixture(scope="session")
def standard(shared_run: Any, trained: Callable, files: dict[str, Path]) -> Callable[[Form], Run]:
    """The run that most tests look at: everything once, from the trained model."""

    def run(form: Form) -> Run:
        words = flags(
            model_name_or_path=trained(form),
            **files,
            do_train=True,
            do_eval=True,
            do_predict=True,
            max_train_samples=44,
            max_eval_samples=20,
            max_predict_samples=20,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_train_epochs=4,
            learning_rate=form.tests["rate"],
            warmup_steps=2,
            weight_decay=0.01,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=2,
            report_to="tensorboard",
            hub_token=SECRET,
        )
        return shared_run(form, "standard", *words, *form.settings["flags"])

    return run
