"""Makes farm_process known to the tests in all folders."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
