"""The model card, and sharing a run on the Hugging Face hub."""

import json
import logging
import os
import shlex
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from triptych import __version__, launchers
from triptych.errors import InputError, RunError
from triptych.launchers import by_the_first
from triptych.output import checkpoints, ownership, results

logger = logging.getLogger(__name__)

PAUSES = (2, 8)  # seconds before an upload that failed is tried again
# What is pushed of a folder: what runs write there, nothing that somebody else put beside it, and no pickle
SHARED = [name for name in ownership.WRITTEN if not name.endswith(".bin")] + ["model-*-of-*.safetensors"]
OF_CHECKPOINTS = ["trainer_state.json"]  # not of the model


class Repository:
    """A repository of the hub that a run is pushed to, by `--hub_strategy`.

    Attributes:
        name: `user/name`.
    """

    def __init__(self, name: str, args: Any):
        self.name, self.args = name, args
        self._upload = threading.Thread()  # of a checkpoint, in the background
        self._left_out: int | None = None  # step of the newest checkpoint, if it is not pushed

    def upload(self, folder: str | os.PathLike, message: str, ignore: Iterable[str] = ()) -> None:
        """Makes one commit of what is shared of a folder; fails as huggingface_hub does."""
        from huggingface_hub import upload_folder

        upload_folder(
            repo_id=self.name,
            folder_path=folder,
            token=self.args.hub_token,
            allow_patterns=SHARED,
            ignore_patterns=list(ignore),
            commit_message=message,
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
            self.upload(folder, message, OF_CHECKPOINTS)
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
        for pause in (*PAUSES, None):
            try:
                return self.upload(self.args.output_dir, "Result of a training run")
            except Exception as error:
                if pause is None or not _may_pass(error):
                    folder = Path(self.args.output_dir)
                    present = [path.name for path in folder.iterdir() if any(map(path.match, SHARED))]
                    included = " ".join(f"--include {shlex.quote(name)}" for name in sorted(present))
                    raise RunError(
                        f"The result in {folder} is complete, but was not pushed: "
                        f"{_reason(error, self.args)}. To push it later, after `hf auth login`:\n"
                        f"  hf upload {self.name} {shlex.quote(str(folder))} . {included}"
                    ) from error
                logger.warning("Pushing failed (%s); once more in %d s.", _reason(error, self.args), pause)
                time.sleep(pause)


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


def push(repository: Repository | None) -> None:
    """Uploads the output folder without its checkpoints, after the uploads under way.

    Raises:
        RunError: if it could not be, after some attempts, with the command that does it later. The local
            result is complete.
    """
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


@by_the_first
def save_card(
    args, model_args, data_args, task: str, metrics: dict[str, Any], repository: Repository | None = None
) -> None:
    """Writes the model card, `README.md`, with the metrics where the hub finds them; a card of somebody else
    stays.

    Args:
        task: the hub's name for it, e.g. `summarization`.
        metrics: of the evaluation, with the prefix `eval_`.
        repository: where the run is pushed to, which gives the card its name.
    """
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult

    folder = Path(args.output_dir)
    path = folder / ownership.CARD
    if path.exists() and ownership.CARD_MARK not in path.read_text(errors="replace"):
        logger.warning("%s is not ours, so no model card was written.", path)
        return
    name = repository.name if repository else folder.resolve().name
    local = Path(model_args.model_name_or_path or "").exists()
    dataset = (
        data_args.dataset_name or data_args.train_file or data_args.validation_file or data_args.test_file
    )
    values = {
        k.removeprefix("eval_"): v for k, v in metrics.items() if k.startswith("eval_") and "_per_" not in k
    }
    values = {
        k: round(v, 4)
        for k, v in values.items()
        if k not in ("runtime", "samples") and isinstance(v, int | float)
    }
    card = ModelCardData(
        model_name=name.rpartition("/")[2],
        base_model=None if local else model_args.model_name_or_path,
        library_name="transformers",
        tags=["triptych", task],
        pipeline_tag=task,
        datasets=[data_args.dataset_name] if data_args.dataset_name and "/" not in dataset[:1] else None,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=data_args.dataset_name or "own-files",
                dataset_name=Path(str(dataset)).name,
                metric_type=metric,
                metric_value=value,
            )
            for metric, value in values.items()
        ]
        or None,
    )
    source = model_args.model_name_or_path or f"a {model_args.model_type or 'new'} model from scratch"
    parts = [
        f"---\n{card.to_yaml()}\n---\n{ownership.CARD_MARK}\n\n# {name}",
        f"`{source}`, trained for {task} on `{dataset}` with triptych {__version__}."
        if args.do_train
        else f"`{source}`, evaluated for {task} on `{dataset}` with triptych {__version__}.",
        "\n".join(["| evaluation | |", "|---|---|", *(f"| {m} | {v:g} |" for m, v in values.items())])
        if values
        else "",
        "![Loss and learning rate](training_curve.png)" if (folder / "training_curve.png").exists() else "",
        _loading(folder, name),
        _facts(folder),
    ]
    # In one step: of a half of it nobody could tell that it is ours.
    results.write(path, ("\n\n".join(filter(None, parts)) + "\n").encode())


def _loading(folder: Path, name: str) -> str:
    """How to load the model in each framework."""
    path = folder / "config.json"
    architecture = path.exists() and (json.loads(path.read_text()).get("architectures") or [None])[0]
    if not architecture:  # of a model that no run of ours has saved
        return ""
    load = "load(folder, AutoConfig.from_pretrained(folder))"
    if architecture.endswith("ForSequenceClassification"):
        load = "classifier(folder, AutoConfig.from_pretrained(folder), seed=0)"
    return f"""## How to load it
In PyTorch:
```python
from transformers import AutoTokenizer, {architecture}

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {architecture}.from_pretrained("{name}")
```
In TensorFlow, and with `triptych.flax` in the place of `triptych.tensorflow` in JAX:
```python
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoTokenizer
from triptych.tensorflow import conversion

folder = snapshot_download("{name}")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = checkpoint.{load}
```"""


def _facts(folder: Path) -> str:
    """Data, versions and arguments, from what the run has written down."""
    about = json.loads((folder / ownership.RUN).read_text())
    arguments = json.loads((folder / "arguments.json").read_text())
    lines = [f"Computed on {about['device']}, in {about['processes']} process(es), with "]
    lines[0] += ", ".join(f"{package} {version}" for package, version in about["versions"].items()) + "."
    if rows := about.get("training_rows"):
        lines.append(f"The training rows have the SHA-256 `{rows}` (`triptych.data.fingerprint`).")
    return "\n\n".join(
        [
            "## How it was made",
            *lines,
            "Its arguments, which the script takes as a file:",
            f"```json\n{json.dumps(arguments, indent=2, ensure_ascii=False)}\n```",
        ]
    )
