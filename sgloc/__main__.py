"""`python -m sgloc` is `sgloc`."""

from sgloc.cli import main

if __name__ == "__main__":
    main()
