"""The command line: one command with sub-commands, and one line for a wrong input."""

import os
import sys
from typing import Annotated

import typer
from click import UsageError

from fedrec.commands import answer, data, embed, export, federation, harness, learn, node, report, sums
from fedrec.commands.parameters import invoked_command, with_options
from fedrec.data.errors import InputError
from fedrec.extras import naming_the_extra
from fedrec.terminal import check_arguments, discard_unread_output, flush_output, print_anything
from fedrec.version import installed_version

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated recommendations: histories stay home, small adapters travel, an endpoint answers.",
)
for commands in (learn, answer, sums, export, report):
    app.add_typer(commands.app)
app.add_typer(harness.harness_app())
data.app.add_typer(embed.app)
app.add_typer(data.app, name="data")
app.add_typer(node.app, name="node")
app.add_typer(federation.app, name="federation")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fedrec {installed_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the console script. A wrong input ends with one line on stderr, and status 2."""
    print_anything()
    try:
        check_arguments(sys.argv[1:])
        with naming_the_extra():
            status = app(prog_name="fedrec", standalone_mode=False)
        flush_output()
        sys.exit(status)
    except BrokenPipeError:
        discard_unread_output()
        sys.exit(1)
    except InputError as error:
        command = invoked_command(typer.main.get_command(app), sys.argv[1:])
        print(f"fedrec: {with_options(str(error), command)}", file=sys.stderr)
        sys.exit(2)
    except UsageError as error:  # its message is empty if there were no arguments and the help was shown
        message = " ".join(error.format_message().split()).rstrip(".")
        command = error.ctx.command_path if error.ctx else "fedrec"
        if message:
            print(f"fedrec: {message}; see `{command} --help`", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        print(
            f"fedrec:{place} {error.strerror or error}; free the space or mend the rights, then try again",
            file=sys.stderr,
        )
        sys.exit(1)
