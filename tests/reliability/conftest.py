"""The run that is interrupted, and how it ends if it is not."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import SECRET, Form, flags, once
from interruption import Record, run_with

# Rows of a batch: `collate 5` is therefore one of an evaluation, which has three. An epoch has five batches
# in three steps, the last with one row.
ROWS, EVALUATION_ROWS = 2, 5

SECONDS_PER_CHAIN = (
    900  # of a dozen processes one after the other, on a machine that does other things as well
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS_PER_CHAIN))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("triptych")
    group.addoption("--soak", type=int, default=0, metavar="KILLS", help="kill at that many random moments")


@pytest.fixture(scope="session")
def words(form: Form, start: Callable[[Form], Path], samples: Path) -> list[str]:
    """Flags of a short run with all that has a state: dropout, moments, warm-up, accumulation over the edges
    of epochs, losses that wait to be logged, evaluation that does not fall together with saving."""
    return flags(
        model_name_or_path=start(form),
        config_overrides=form.tests["dropout"],
        **form.tests["short"],
        train_file=samples / "train.jsonl",
        validation_file=samples / "validation.jsonl",
        test_file=samples / "test.jsonl",
        max_train_samples=9,
        max_eval_samples=15,
        max_predict_samples=3,
        do_train=True,
        do_predict=True,
        predict_with_generate=form.tests.get("generates"),
        per_device_train_batch_size=ROWS,
        per_device_eval_batch_size=EVALUATION_ROWS,
        gradient_accumulation_steps=2,
        max_steps=6,
        learning_rate=1e-2,
        warmup_steps=3,
        weight_decay=0.1,
        logging_steps=4,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=2,
        hub_token=SECRET,
    )


@pytest.fixture(scope="session")
def uninterrupted(words: list[str]) -> Callable[..., tuple[Path, Record]]:
    """The folder that a run leaves if nothing happens, and what it did; one with other flags by a `name`."""

    def get(form: Form, name: str = "plain", *others: Any) -> tuple[Path, Record]:
        def build(folder: Path) -> None:
            _, record = run_with(form, [*words, *map(str, others)], folder)
            (folder / "record.pickle").write_bytes(pickle.dumps(record.entries))

        folder = once(
            Path(os.environ["TRIPTYCH_TEST_RUN"]) / "uninterrupted" / name / form.task / form.name, build
        )
        return folder / "out", Record(pickle.loads((folder / "record.pickle").read_bytes()))

    return get


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of `make soak`."""
    path = Path(os.environ["TRIPTYCH_TEST_RUN"]) / "soak.jsonl"
    if not path.exists():
        return
    terminalreporter.section("kills")
    columns = ("kills", "landed", "continued exactly", "lost")
    terminalreporter.write_line(f"{'form':36}{'at':22}" + "".join(f"{name:>18}" for name in columns))
    for line in sorted(path.read_text().splitlines()):
        form, kind, *numbers = json.loads(line).values()
        terminalreporter.write_line(f"{form:36}{kind:22}" + "".join(f"{number:>18,}" for number in numbers))
