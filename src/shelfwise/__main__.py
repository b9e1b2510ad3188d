"""`python -m shelfwise`, which is also how `torchrun -m shelfwise` starts each process."""

from shelfwise.cli import main

if __name__ == "__main__":
    main()
