"""What no user of an example script edits: data, batches, plans, checkpoints, metrics, results, and the hub.

The modules at this level know no tensor library. `triptych.pytorch`, `triptych.tensorflow` and
`triptych.flax` hold what needs one, and each is imported by its own scripts only.
"""

import getpass
import os
import sys
import tempfile
from importlib.util import find_spec

__version__ = "0.2.0"


def _find_home() -> None:
    """Gives a process that has neither home nor user name, as in a container that runs under some number, a
    folder and a name of its own: libraries look for their caches there, and fail without."""
    name = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"
    if os.path.expanduser("~") == "~":
        home = os.path.join(tempfile.gettempdir(), f"home-of-{name}")
        os.makedirs(home, 0o700, exist_ok=True)
        is_own = os.stat(home).st_uid == os.getuid() and not os.path.islink(home)
        os.environ["HOME"] = home if is_own else tempfile.mkdtemp()
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # the second since Python 3.13, the third without `pwd`
        os.environ["USER"] = name


def require(versions: str, *modules: str) -> None:
    """Ends the process with exit code 2 unless the version is one that a script was written for, the modules
    that it needs are installed, and the libraries are of versions that work.

    Args:
        versions: a range, `>=0.2,<0.3`: a copied script outlives a patch release.
    """
    bounds = [*versions.split(","), __version__]
    lowest, limit, own = ([int(part) for part in bound.lstrip(">=<").split(".")] for bound in bounds)
    if not lowest <= own < limit:
        _refuse(
            f"This script needs triptych {versions}, but {__version__} is installed: `make versions; git "
            f"checkout v{__version__}` gets its scripts, `pip install -r requirements.txt` beside this "
            "script gets the package that goes with it."
        )
    _find_home()
    from triptych import libraries  # which another version need not have

    if missing := [name for name in modules if find_spec(name) is None]:
        _refuse(
            f"This script needs {', '.join(missing)}: run `pip install -r requirements.txt` in its folder."
        )
    if problems := libraries.outside(modules):
        _refuse(*problems)
    libraries.explain_failures(modules)


def _refuse(*problems: str) -> None:
    print(*problems, sep="\n", file=sys.stderr)
    sys.exit(2)
