"""`python -m tuneloop`."""

import sys

from tuneloop.cli.main import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
