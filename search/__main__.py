"""The command ``aesearch``: Ctrl-C ends it in one line, also while its parts are being loaded."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from aesearch.cli import main as run  # noqa: PLC0415 - takes a tenth of a second

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
