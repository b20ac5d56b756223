"""Commands as they are printed in documents: found, split into words, and read by the real command line, not run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

from fedrec.cli import app

BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
SHELL = ("sh", "bash", "console")
"""The languages of blocks of commands; one without a language may be such a block, too."""

PROMPT = "$ "
COMMAND = typer.main.get_command(app)


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages, in its order."""
    return [found["text"] for found in BLOCK.finditer(page.read_text("utf-8")) if found["language"] in languages]


def command_lines(block: str) -> Iterator[str]:
    """The commands of a block, each in one line or over several: a quotation or a backslash continues it.

    If some lines begin with a prompt, they are the commands, and the others are what is printed. The lines of a here
    document are none.
    """
    lines = block.splitlines()
    prompted = any(line.startswith(PROMPT) for line in lines)
    while lines:
        line = lines.pop(0)
        if (prompted and not line.startswith(PROMPT)) or not line.strip():
            continue
        line = line.removeprefix(PROMPT)
        while lines and (line.endswith("\\") or not _is_closed(line)):
            line = f"{line.removesuffix(chr(92))}\n{lines.pop(0)}"
        if here := re.search(r"<<(\w+)", line):
            while lines.pop(0) != here[1]:
                pass
        yield line


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:  # an open quotation
        return False
    return True


def commands(line: str) -> Iterator[list[str]]:
    """The words of each command of a line: `a && b | c` has three. Assignments before a command are left out."""
    words: list[str] = []
    for word in [*_words(line), ";"]:
        if word in (";", "&", "&&", "|", "||", "\n"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word):
            words.append(word)


def _words(line: str) -> list[str]:
    """Split a line; what another command prints counts as a word, and a redirection as none."""
    line = re.sub(r"\$\([^()]*(\([^()]*\)[^()]*)*\)", "PRINTED", line)
    lexer = shlex.shlex(re.sub(r"\s*<<?\w+|\s*\d?>+\s*\S+", "", line), posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    return list(lexer)


def parse_command(arguments: list[str], command: click.Command = COMMAND) -> dict[str, Any]:
    """The values that a command would run with. Raises `click.UsageError` for arguments that it does not take."""
    context, name, left = None, command.name, list(arguments)
    while True:
        try:
            context = command.make_context(name, left, parent=context)
        except click.exceptions.Exit:  # --help, or another option that prints and stops
            return {}
        if not isinstance(command, click.Group):
            return context.params | {"command": command.name}
        left = [*context._protected_args, *context.args]
        name, found, left = command.resolve_command(context, left)
        assert found
        command = found
