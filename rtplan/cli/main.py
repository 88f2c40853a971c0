"""The `rtplan` command: exit codes, and one line a mistake.

Commands import what they need when they run, so that `--help` loads neither numeric nor DICOM libraries.

Exit codes: 0 goals met; 1 failure; 2 usage; 3 plan made, goals missed; 4 case rejected; 130 and 143 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer

from rtplan.cli import batch, demo, doctor, dose, machines, models, plan, protocols, segment
from rtplan.cli.console import complain, say
from rtplan.errors import RtplanError

INTERRUPTED = 130

app = typer.Typer(
    help="Plans radiation therapy: CT and structures in, a DICOM-RT plan proposal out. Research use, not a medical device.",
    epilog="Exit codes: 0 goals met; 1 failure; 2 usage; 3 plan made, goals missed; 4 case rejected.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("plan")(plan.plan)
app.command("segment")(segment.segment)
app.command("dose")(dose.dose)
app.command("batch")(batch.batch)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(protocols.app, name="protocols")
app.add_typer(machines.app, name="machines")
app.add_typer(models.app, name="models")


def _version(asked: bool) -> None:
    if asked:
        from rtplan.provenance import package_version

        say(f"rtplan {package_version()}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code. Every mistake ends as one line on stderr."""
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="rtplan", standalone_mode=False)
        if code == INTERRUPTED:  # typer takes Ctrl-C for an exit with this code
            complain("INTERRUPTED: stopped on request; a case that had not ended has no plan")
        return code if isinstance(code, int) else 0
    except RtplanError as error:
        complain(error.line())
        return error.exit_code
    except typer.TyperException as error:
        message = error.format_message().rstrip(".")
        if message:  # empty when a command without its subcommand has shown its help
            complain(f"USAGE: {message}; remedy: see rtplan --help")
        return 2
    except BrokenPipeError:
        # The reader of stdout went away; point it elsewhere so that the interpreter's last flush does not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("RTPLAN_DEBUG"):
            traceback.print_exc()
        complain(f"INTERNAL_ERROR: {type(error).__name__}: {error}; remedy: set RTPLAN_DEBUG=1 to see where, and report it")
        return 1


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that the cluster's processes are ended on the way out.
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the `rtplan` command."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run())
