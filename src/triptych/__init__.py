"""What no user of an example script edits: data, batches, plans, checkpoints, metrics, results, and the hub.

The modules at this level know no tensor library. `triptych.pytorch`, `triptych.tensorflow` and
`triptych.flax` hold what needs one, and each is imported by its own scripts only.
"""

import sys

__version__ = "0.1.0"


def require_version(needed: str) -> None:
    """Ends the process with exit code 2 unless this is the version that a script was written for."""
    if needed == __version__:
        return
    print(
        f"This script needs triptych {needed}, but {__version__} is installed: `git checkout v{__version__}` "
        f"gets its scripts, `pip install -r requirements.txt` beside this script gets triptych {needed}.",
        file=sys.stderr,
    )
    sys.exit(2)
