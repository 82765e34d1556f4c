"""``python -m aesearch``: the same as the command ``aesearch``."""

from aesearch.cli import main

if __name__ == "__main__":
    main()
