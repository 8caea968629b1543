"""`python -m skynet`: the same as the command `skynet`."""

from skynet.cli import main

main()
