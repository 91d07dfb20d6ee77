"""`python -m kbdfl`."""

from kbdfl.cli import main

if __name__ == "__main__":
    main()
