"""`python -m lacewing` is the command `lacewing`."""

from lacewing.cli import main

if __name__ == "__main__":
    main()
