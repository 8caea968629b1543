"""What reports need of rich's markup, loaded with the first line that is written.

Loading rich takes a sixth of the time to start, and a run that answers in JSON needs none of it.
"""

from __future__ import annotations


def escape(text: str) -> str:
    """Text as markup that shows it."""
    from rich import markup

    return markup.escape(text)


def columns(text: str) -> int:
    """How many columns of a terminal it takes."""
    from rich.cells import cell_len

    return cell_len(text)
