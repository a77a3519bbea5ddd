"""`python -m ripieno.cli`: the same as the `ripieno` command."""

from ripieno.cli import main

if __name__ == "__main__":
    main()
