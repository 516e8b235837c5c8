"""`python -m clepsydra`: the same as the command `clepsydra`."""

import sys

from .console.main import main

if __name__ == "__main__":
    sys.exit(main())
