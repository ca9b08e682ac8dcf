"""What the first process alone writes, and when the others read it."""

from types import SimpleNamespace

import pytest
import transformers

from triptych.pytorch import saving
from triptych.pytorch.trainer import Trainer


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


@pytest.mark.parametrize("is_first", [True, False])
def test_one_process_alone_writes_the_tokenizer(is_first, tmp_path, monkeypatch):
    """The Trainer saves in all of them; two that write the same file read what the other has half written."""
    monkeypatch.setattr(transformers.Seq2SeqTrainer, "_save", lambda *given: None)
    trainer = object.__new__(Trainer)
    trainer.args = SimpleNamespace(should_save=is_first, hub_token=None)
    trainer.processing_class = SimpleNamespace(
        save_pretrained=lambda folder: (folder / "tokenizer.json").touch()
    )
    trainer._save(tmp_path)
    assert any(tmp_path.iterdir()) == is_first
