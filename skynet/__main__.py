"""The command `skynet`, also as `python -m skynet`."""

import sys

from skynet.interrupts import put_off


def main() -> None:
    """Run the command line. It takes a while to load, and Ctrl-C may come before that is done."""
    try:
        put_off()
        from skynet import cli

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)  # ExitCode.INTERRUPTED, which may not be loaded yet


if __name__ == "__main__":
    main()
