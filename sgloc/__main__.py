"""Entry point of `python -m sgloc`."""

from sgloc.cli import main

if __name__ == "__main__":
    main()
