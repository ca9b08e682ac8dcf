"""What in an output folder is the run's own, and so may be replaced or removed."""

import os
import re
import shutil
from pathlib import Path

from triptych.output import checkpoints, lock, record

CARD = "README.md"
CARD_MARK = "<!-- written by triptych -->"
# What every run that trains writes; a folder that holds one of them from elsewhere is not written to.
ALWAYS_WRITTEN = ("config.json", "model.safetensors", "all_results.json", "arguments.json", record.RUN)
# What a run leaves that was killed before its first checkpoint, beside what it has noted as its own.
BEGUN = re.compile(
    rf"({re.escape(record.RUN)}|arguments\.json)\.\d+\.partial|runs|wandb|{re.escape(checkpoints.UNFINISHED)}.*"
)
PARTIAL = re.compile(r"(.+)\.\d+\.partial")


def problems(output_dir: str, do_train: bool, overwrite: bool) -> list[str]:
    """What keeps a run from writing to its output folder without harm to what is there."""
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        return [f"--output_dir {output_dir}: is a file."]
    nearest = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return [f"--output_dir {output_dir}: {nearest} cannot be written to."]
    if found := lock.problems(folder):
        return found
    present = sorted(p.name for p in folder.iterdir() if p.name != lock.NAME) if folder.is_dir() else []
    if not do_train or not present:
        return []
    checkpoint, damaged = checkpoints.newest(folder)
    ours = record.written(folder)
    if not overwrite and checkpoint is None and not _is_unfinished(present, ours):
        listing = ", ".join(present[:3]) + (f" and {len(present) - 3} more" if len(present) > 3 else "")
        return [
            *damaged,
            f"--output_dir {output_dir}: is not empty ({listing}) and holds no checkpoint to continue; "
            "choose another folder, or give --overwrite_output_dir.",
        ]
    foreign = [name for name in ALWAYS_WRITTEN if name in present and name not in ours]
    if foreign:
        return [
            f"--output_dir {output_dir}: {', '.join(foreign)} would be overwritten, but no run of ours wrote "
            "that; choose another folder."
        ]
    return []


def _is_unfinished(present: list[str], ours: frozenset[str]) -> bool:
    """Whether all that is there is from a run of ours that has not come to its results: killed, perhaps, as
    it put its model there. It may begin again, and its model then takes that one's place."""
    own = [name for name in present if name in ours or _is_partial(name, ours)]
    others = [name for name in present if name not in own]
    return all(map(BEGUN.fullmatch, others)) and not any(name.endswith("_results.json") for name in own)


def _is_partial(name: str, ours: frozenset[str]) -> bool:
    """Whether a file is what a killed run had written of one of its own."""
    part = PARTIAL.fullmatch(name)
    return part is not None and (part[1] in ours or part[1] == record.RUN)


def tidy(output_dir: str | Path) -> None:
    """Removes what a killed run left half written, or half removed."""
    checkpoints.tidy(output_dir)
    ours = record.written(output_dir)
    for path in Path(output_dir).glob("*.partial"):
        if _is_partial(path.name, ours):
            path.unlink(missing_ok=True)


def clear(output_dir: str | Path) -> None:
    """Removes what earlier runs wrote to the folder, and nothing else."""
    folder, names = Path(output_dir), record.written(output_dir)
    card = folder / CARD
    if card.exists() and CARD_MARK not in card.read_text(errors="replace"):
        names -= {CARD}  # it was ours, and somebody has written another in its place
    events = [*folder.glob("runs/events.out.tfevents.*"), *folder.glob("runs/*/events.out.tfevents.*")]
    # What tells that the rest is ours goes last: the run may be killed, and another process may be looking.
    ours = sorted((folder / name for name in names), key=lambda path: path.name == record.RUN)
    for path in checkpoints.found(folder):
        shutil.rmtree(path)
    for path in folder.glob(f"{checkpoints.UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in [*(events if names else []), *ours]:
        path.unlink(missing_ok=True)
