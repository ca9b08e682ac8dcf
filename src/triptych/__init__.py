"""What no user of an example script edits: data, batches, plans, checkpoints, metrics, results, and the hub.

The modules at this level know no tensor library. `triptych.pytorch`, `triptych.tensorflow` and
`triptych.flax` hold what needs one, and each is imported by its own scripts only.
"""

import sys
from importlib.util import find_spec

__version__ = "0.1.0"


def require(version: str, *modules: str) -> None:
    """Ends the process with exit code 2 unless this is the version that a script was written for, and the
    modules that it needs are installed."""
    problem = ""
    if version != __version__:
        problem = (
            f"This script needs triptych {version}, but {__version__} is installed: `git checkout "
            f"v{__version__}` gets its scripts, `pip install -r requirements.txt` beside this script gets "
            f"triptych {version}."
        )
    elif missing := [name for name in modules if find_spec(name) is None]:
        problem = (
            f"This script needs {', '.join(missing)}: run `pip install -r requirements.txt` in its folder."
        )
    if problem:
        print(problem, file=sys.stderr)
        sys.exit(2)
