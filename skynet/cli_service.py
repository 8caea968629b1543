"""The command line of `skynet service`: names and options; what they do is in commands_service."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from skynet.cli_options import ConfigFile, Names, StateDir

service = typer.Typer(
    help="Run the daemon as a service of systemd, launchd or Windows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

System = Annotated[
    bool, typer.Option("--system", help="A service of the machine, with systemd; as root.")
]


@service.command()
def install(
    names: Names = None,
    *,
    config: ConfigFile = None,
    state_dir: StateDir = None,
    system: System = False,
    user: Annotated[str, typer.Option(help="Who runs it, with --system.", show_default=False)] = "",
    show: Annotated[
        bool, typer.Option("--print", help="Show what would be written and run; do neither.")
    ] = False,
    platform: Annotated[
        Literal["linux", "macos", "windows"] | None,
        typer.Option("--for", help="With --print, for another platform than this."),
    ] = None,
) -> None:
    """Start the daemon now and at each login.

    With --system, at each start of the machine.
    """
    from skynet import commands_service as commands

    wanted = commands.Wanted(tuple(names or ()), config, state_dir, platform, system, user)
    raise typer.Exit(commands.install(wanted, commands.Face(), show=show))


@service.command()
def uninstall(system: System = False) -> None:
    """End the service and remove it."""
    from skynet import commands_service as commands

    raise typer.Exit(commands.uninstall(commands.Wanted(system=system), commands.Face()))


@service.command()
def status(system: System = False) -> None:
    """What the service manager says of it. Exit code 0 if it runs."""
    from skynet import commands_service as commands

    raise typer.Exit(commands.status(commands.Wanted(system=system), commands.Face()))
