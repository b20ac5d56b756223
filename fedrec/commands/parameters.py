"""Parameters as the library names them, in backticks, and the options by which a command takes them."""

import re
from collections.abc import Sequence

import click

_PARAMETER = re.compile(r"`([a-z_]+)(?:=([^`\s]+))?`")


def invoked_command(root: click.Command, arguments: Sequence[str]) -> click.Command:
    """Return the command that arguments invoke: the last sub-command that they name."""
    command = root
    for argument in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.commands.get(argument, command)
    return command


def with_options(text: str, command: click.Command) -> str:
    """Replace parameters in backticks by a command's options.

    `cold_share` becomes --cold-share, `resume=True` --resume and, for a command with --set, `rounds=9` --set rounds=9.
    A word in backticks that is no parameter of the command stays as it is.
    """
    options = {parameter.name: _spelling(parameter) for parameter in command.params}

    def spelled(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name in options:
            return options[name] if value in (None, "True") else f"{options[name]} {value}"
        return f"--set {name}={value}" if value and options.get("settings") == "--set" else match[0]

    return _PARAMETER.sub(spelled, text)


def _spelling(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name
    return next((option for option in parameter.opts if option.startswith("--")), parameter.opts[0])
