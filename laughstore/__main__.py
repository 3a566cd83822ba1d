"""`python -m laughstore` and the command `laughstore`: the same."""

import sys


def main() -> int:
    """Run the command line of this process. Returns the exit code."""
    try:
        from .cli.main import main as run
    except KeyboardInterrupt:  # before anything that handles it was there
        sys.stderr.write("laughstore: interrupted\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
