"""`python -m shoal` runs the command line, like `shoal`."""

from shoal.cli import main

if __name__ == "__main__":
    main()
