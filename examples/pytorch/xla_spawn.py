"""Start a training script on the cores of a TPU, with torch_tpu or torch_xla, whichever is installed.

    python xla_spawn.py --num_cores 8 summarization/run_summarization.py --optim adamw_torch --do_train ...

Everything after the script's name is the script's own. Its optimizer must not be the default fused AdamW,
which torch_xla does not have.
"""

import argparse
import os
import runpy
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path


def spawner(cores: int):
    """`spawn` of the installed library: it calls a function with 0, 1, ... in a process for each core."""
    if find_spec("torch_tpu"):
        import torch.multiprocessing
        import torch_tpu  # noqa: F401 (brings torch.tpu)
        from torch.tpu import distributed

        distributed.set_tpu_launch_env(nproc_per_node=cores)
        return partial(torch.multiprocessing.spawn, nprocs=cores)
    if find_spec("torch_xla"):
        from torch_xla.distributed.xla_multiprocessing import spawn

        # PJRT starts one process, or one for each core that there is.
        return partial(spawn, nprocs=1 if cores == 1 else None)
    sys.exit(
        "xla_spawn.py: neither torch_tpu nor torch_xla is installed. On a machine with a TPU:\n"
        "  pip install torch_tpu                          # for torch 2.11 to 2.15\n"
        "  pip install torch==2.9.0 'torch_xla[tpu]==2.9.0'"
    )


def run_script(index: int, script: str, words: list[str]) -> None:
    """Runs the script in this process as `python script words` would."""
    os.environ.setdefault("RANK", str(index))
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).resolve().parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_cores", type=int, default=1, help="cores of the TPU (default: 1)")
    parser.add_argument("script", help="training script, then its own flags")
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not Path(given.script).is_file():
        parser.error(f"{given.script}: there is no such script")
    spawner(given.num_cores)(run_script, args=(given.script, given.words))
