"""``python -m prunec`` is the command ``prunec``."""

import sys

from .cli import main

sys.exit(main())
