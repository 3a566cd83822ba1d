"""`python -m laughstore`, the same as the command `laughstore`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
