"""The best checkpoint is read when the first process has written it."""

from types import SimpleNamespace

import pytest

from triptych.pytorch import saving


@pytest.fixture
def events():
    return []


@pytest.fixture
def training(events, tmp_path):
    """A run of several processes, in one that is not the first, whose best checkpoint is of step 3."""
    world = SimpleNamespace(process=1, processes=2, gather=lambda values: events.append("all have met"))
    args = SimpleNamespace(load_best_model_at_end=True, output_dir=str(tmp_path))
    return SimpleNamespace(args=args, world=world, state=SimpleNamespace(best_step=3))


def test_best_checkpoint_is_read_when_all_processes_have_met(training, events, monkeypatch):
    meet = SimpleNamespace(wait_for_everyone=lambda: events.append("all have met"))
    monkeypatch.setattr(saving, "PartialState", lambda: meet)
    monkeypatch.setattr(saving, "load_weights", lambda folder, model: events.append(folder.name))
    saving.load_best(training, None)
    assert events == ["all have met", "checkpoint-3"]
