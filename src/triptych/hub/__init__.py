"""Sharing a run on the Hugging Face hub."""

import logging
import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from triptych import launchers
from triptych.errors import InputError, RunError
from triptych.hub import card
from triptych.models.tensor_files import OPTIMIZER
from triptych.output import checkpoints, record

logger = logging.getLogger(__name__)

PAUSES = (2, 8)  # seconds before an upload that failed is tried again
PICKLES = ("*.bin", "*.pt", "*.pth")  # which could run code, so that they are not shared
# Of a checkpoint, what continues a run
OF_CHECKPOINTS = (checkpoints.MANIFEST, checkpoints.STATE, OPTIMIZER, "trainer_state.json", *PICKLES)


def shared(folder: Path) -> list[str]:
    """The names of what is pushed of an output folder: what runs wrote there, nothing that somebody else put
    beside it, and no pickle."""
    names = record.written(folder)
    return sorted(name for name in names if not any(map(Path(name).match, PICKLES)))


class Repository:
    """A repository of the hub that a run is pushed to, by `--hub_strategy`.

    Attributes:
        name: `user/name`.
    """

    def __init__(self, name: str, args: Any):
        self.name, self.args = name, args
        self._upload = threading.Thread()  # of a checkpoint, in the background
        self._left_out: int | None = None  # step of the newest checkpoint, if it is not pushed

    def upload(self, folder: Path, message: str, **patterns: Iterable[str]) -> None:
        """Makes one commit of a folder's files that the `patterns` of huggingface_hub allow; fails as it
        does."""
        from huggingface_hub import upload_folder

        chosen = {name: list(values) for name, values in patterns.items()}
        upload_folder(
            repo_id=self.name, folder_path=folder, token=self.args.hub_token, commit_message=message, **chosen
        )

    def upload_whole(self, folder: Path, message: str, path: str) -> None:
        """Makes a folder of the repository equal to one here."""
        from huggingface_hub import upload_folder

        place = {"repo_id": self.name, "path_in_repo": path, "token": self.args.hub_token}
        upload_folder(folder_path=folder, delete_patterns="*", commit_message=message, **place)

    def push_checkpoint(self, step: int) -> None:
        """Begins to upload a checkpoint; while one is under way, others are left out, but for the last."""
        self._left_out = step
        if self._upload.is_alive():
            return
        checkpoint = checkpoints.of_step(self.args.output_dir, step)
        # Names of its own for the files, which rotation may remove before they are sent
        copy = checkpoint.with_name(f"{checkpoints.UNFINISHED}push-{step}")
        shutil.copytree(checkpoint, copy, copy_function=_link, dirs_exist_ok=True)
        self._upload = threading.Thread(target=self._send, args=(copy, step), daemon=True)
        self._upload.start()

    def _send(self, folder: Path, step: int) -> None:
        message, strategy = f"After step {step}", self.args.hub_strategy
        try:
            self.upload(folder, message, ignore_patterns=OF_CHECKPOINTS)
            if strategy in ("checkpoint", "all_checkpoints"):
                name = "last-checkpoint" if strategy == "checkpoint" else f"checkpoint-{step}"
                self.upload_whole(folder, message, name)
            if self._left_out == step:
                self._left_out = None
        except Exception as error:  # of the network, of the server, of the disk: training goes on
            reason = _reason(error, self.args)
            logger.warning("Step %d was not pushed to %s: %s", step, self.name, reason)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def push(self) -> None:
        """Uploads the output folder; see `push`."""
        if self._upload.is_alive():
            self._upload.join()
        if self._left_out is not None:
            self.push_checkpoint(self._left_out)
            self._upload.join()
        folder = Path(self.args.output_dir)
        names = shared(folder)
        for pause in (*PAUSES, None):
            try:
                return self.upload(folder, "Result of a training run", allow_patterns=names)
            except Exception as error:
                if pause is None or not _may_pass(error):
                    included = " ".join(f"--include {shlex.quote(name)}" for name in names)
                    raise RunError(
                        f"The result in {folder} is complete, but was not pushed: "
                        f"{_reason(error, self.args)}. To push it later, after `hf auth login`:\n"
                        f"  hf upload {self.name} {shlex.quote(str(folder))} . {included}"
                    ) from error
                logger.warning("Pushing failed (%s); once more in %d s.", _reason(error, self.args), pause)
                time.sleep(pause)


def use_token(args: Any) -> None:
    """Lets everything that is loaded from the hub be loaded with `--hub_token`, if it is given."""
    if args.hub_token:
        os.environ["HF_TOKEN"] = args.hub_token


def require_repository(args) -> Repository | None:
    """Creates the repository that the run will be pushed to, if it is not there, and asks for the right to
    write to it; before training, so that a missing right does not cost a run.

    Returns:
        None without `--push_to_hub`, and in other processes than the first.

    Raises:
        InputError: if the hub refuses or cannot be reached.
    """
    if not args.push_to_hub or launchers.process() > 0:
        return None
    from huggingface_hub import CommitOperationAdd, create_repo, preupload_lfs_files

    name = args.hub_model_id or Path(args.output_dir).resolve().name
    try:
        own = {"token": args.hub_token}
        name = create_repo(name, private=args.hub_private_repo, exist_ok=True, **own).repo_id
        # Asks how it would have to be sent, which needs the right to write; nothing is sent.
        preupload_lfs_files(name, [CommitOperationAdd("README.md", b"triptych")], **own)
    except Exception as error:  # of the network, of authentication, of the name: the hub's client has many
        raise InputError(f"--push_to_hub: {name} cannot be written to: {_reason(error, args)}") from error
    return Repository(name, args)


def push_checkpoint(repository: Repository | None, step: int) -> None:
    """Uploads a checkpoint that was just saved, unless `--hub_strategy` is `end`, while training goes on."""
    if repository and repository.args.hub_strategy != "end":
        repository.push_checkpoint(step)


def share(
    model_args: Any,
    data_args: Any,
    args: Any,
    task: str,
    metrics: dict[str, Any],
    repository: Repository | None,
) -> None:
    """Writes the model card, see `card.save`; and uploads the output folder without its checkpoints, after
    the uploads under way, if a repository is given.

    Raises:
        RunError: if it could not be uploaded, after some attempts, with the command that does it later. The
            local result is complete.
    """
    name = repository.name if repository else Path(args.output_dir).resolve().name
    card.save(model_args, data_args, args, task, metrics, name)
    if repository:
        repository.push()
        logger.info("Pushed to %s", repository.name)


def _may_pass(error: Exception) -> bool:
    """Whether an error of an upload may be gone at the next attempt: not if the hub refuses."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code is None or code == 429 or code >= 500


def _reason(error: Exception, args: Any) -> str:
    """The first line of a message, without the token, which a server may quote."""
    from huggingface_hub import get_token

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = getattr(error, "server_message", None) or (lines[0] if lines else type(error).__name__)
    for token in filter(None, (args.hub_token, get_token())):
        said = said.replace(token, "<hidden>")
    return said.rstrip(".")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
