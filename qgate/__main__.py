"""`python -m qgate`."""

import sys

from qgate.cli import main

sys.exit(main())
