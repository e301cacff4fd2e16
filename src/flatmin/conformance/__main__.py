"""The program: ``python -m flatmin.conformance``."""

import sys

from flatmin.conformance._cli import main

if __name__ == "__main__":
    sys.exit(main())
