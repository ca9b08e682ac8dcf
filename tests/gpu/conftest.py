"""What tests the test: the modules of the program `run.py` lie beside it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
