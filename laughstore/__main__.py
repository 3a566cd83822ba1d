"""`python -m laughstore` and the command `laughstore`: the same."""

import sys


def main() -> int:
    """Run the command line of this process. Returns the exit code."""
    try:
        from .cli.main import main as run

        return run()
    except KeyboardInterrupt:  # before what handles it was there, or behind it
        sys.stderr.write("laughstore: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
