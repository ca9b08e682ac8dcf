"""What no user of an example script edits: data, batches, plans, checkpoints, metrics, results, and the hub.

The modules at this level know no tensor library. `triptych.pytorch`, `triptych.tensorflow` and
`triptych.flax` hold what needs one, and each is imported by its own scripts only.
"""

import sys
from importlib.util import find_spec

from triptych import libraries

__version__ = "0.2.0"


def require(versions: str, *modules: str) -> None:
    """Ends the process with exit code 2 unless the version is one that a script was written for, the modules
    that it needs are installed, and the libraries are of versions that work.

    Args:
        versions: a range, `>=0.2,<0.3`: a copied script outlives a patch release.
    """
    problems = []
    if not libraries.within(__version__, versions):
        problems = [
            f"This script needs triptych {versions}, but {__version__} is installed: `git checkout "
            f"v{__version__}` gets its scripts, `pip install -r requirements.txt` beside this script gets "
            "the package that goes with it."
        ]
    elif missing := [name for name in modules if find_spec(name) is None]:
        problems = [
            f"This script needs {', '.join(missing)}: run `pip install -r requirements.txt` in its folder."
        ]
    else:
        problems = libraries.outside(modules)
    if problems:
        print(*problems, sep="\n", file=sys.stderr)
        sys.exit(2)
    libraries.explain_failures(modules)
