"""Lets `python -m rtplan` do what the `rtplan` command does."""

from rtplan.cli.main import main

if __name__ == "__main__":
    main()
