"""The output folder: what a run writes there, and what it may remove."""

import json
import os
import re
import shutil
from pathlib import Path

from triptych.output import checkpoints

RUN = "run.json"
CARD = "README.md"
CARD_MARK = "<!-- written by triptych -->"
# Everything that a run of ours writes beside its checkpoint-<step>/ and runs/ folders.
WRITTEN = (
    RUN,
    CARD,
    "arguments.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "predict_results.json",
    "trainer_state.json",
    "training_curve.png",
    "training_args.bin",
    "generated_predictions.txt",
    "predictions.tsv",
    "predictions_mm.tsv",
    "eval_mm_results.json",
    "predict_mm_results.json",
    "confusion_matrix.png",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
)

# What a run of ours writes there before its first checkpoint: nothing that a new beginning would lose.
BEGUN = re.compile(
    rf"({re.escape(RUN)}|arguments\.json)(\.\d+\.partial)?|runs|{re.escape(checkpoints.UNFINISHED)}.*"
)
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PARTIAL = re.compile(rf"({'|'.join(map(re.escape, WRITTEN))})\.\d+\.partial")


def problems(output_dir: str, do_train: bool, overwrite: bool) -> list[str]:
    """What keeps a run from writing to its output folder without harm to what is there."""
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        return [f"--output_dir {output_dir}: is a file."]
    nearest = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return [f"--output_dir {output_dir}: {nearest} cannot be written to."]
    present = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if not do_train or not present:
        return []
    checkpoint, damaged = checkpoints.newest(folder)
    if not overwrite and checkpoint is None and not _is_unfinished(folder, present):
        listing = ", ".join(present[:3]) + (f" and {len(present) - 3} more" if len(present) > 3 else "")
        return [
            *damaged,
            f"--output_dir {output_dir}: is not empty ({listing}) and holds no checkpoint to continue; "
            "choose another folder, or give --overwrite_output_dir.",
        ]
    # A model card of somebody else stays as it is.
    written = [name for name in WRITTEN if name != CARD]
    foreign = [name for name in written if (folder / name).exists() and not _is_ours(folder, name)]
    if foreign and overwrite:
        return [
            f"--output_dir {output_dir}: {', '.join(foreign)} would be overwritten, but no run of ours wrote "
            "that; choose another folder."
        ]
    return []


def _is_unfinished(folder: Path, present: list[str]) -> bool:
    """Whether all that is there is from a run of ours that has not come to its results: killed, perhaps, as
    it put its model there. It may begin again, and its model then takes that one's place."""
    if RUN not in present:
        return all(map(BEGUN.fullmatch, present))
    model = {name for name in WRITTEN if not name.endswith("_results.json") and name != CARD}
    known = (BEGUN.fullmatch(name) or name in model or SHARD.fullmatch(name) for name in present)
    return _is_ours(folder, RUN) and all(known)


def tidy(output_dir: str | Path) -> None:
    """Removes what a killed run left half written, or half removed."""
    checkpoints.tidy(output_dir)
    for path in Path(output_dir).glob("*.partial"):
        if PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def clear(output_dir: str | Path) -> None:
    """Removes what an earlier run wrote to the folder, and nothing else."""
    folder = Path(output_dir)
    ours = [folder / name for name in WRITTEN if (folder / name).is_file() and _is_ours(folder, name)]
    shards = list(folder.glob("model-*-of-*.safetensors")) if ours else []
    events = list(folder.glob("runs/events.out.tfevents.*")) + list(
        folder.glob("runs/*/events.out.tfevents.*")
    )
    # What tells that the folder is ours goes last: another process may be looking.
    ours.sort(key=lambda path: path.name == RUN)
    for path in [*shards, *(events if ours else []), *ours]:
        path.unlink()
    for path in checkpoints.found(folder):
        shutil.rmtree(path)
    for path in folder.glob(f"{checkpoints.UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _is_ours(folder: Path, name: str) -> bool:
    if name == CARD:
        return CARD_MARK in (folder / name).read_text(errors="replace")
    try:
        return "triptych" in json.loads((folder / RUN).read_text())["versions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
