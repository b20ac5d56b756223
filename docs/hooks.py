"""A hook of mkdocs: the site has the folders of the repository, so that a link that works there works here, too.

The reference of the command line is generated from the commands.
"""

import re
from pathlib import Path

import typer
import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fedrec.cli import app

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md")
BESIDE = (
    "LICENSE",
    "CITATION.cff",
    "docs/**/*.png",
    "docs/**/*.svg",
    "deploy/*",
    "deploy/kubernetes/*",
    "benchmarks/*.json",
    "benchmarks/*.toml",
    "benchmarks/peers/*.json",
    "notebooks/*.ipynb",
)
"""Files that pages show or link to."""

COMMANDS = "docs/commands.md"
"""The page of the command line, which is in no file."""


def render_commands() -> str:
    """Render each command with its arguments and options, as `--help` prints them."""
    command = typer.main.get_command(app)
    page = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name="fedrec", title="Command line")
    return re.sub(r" +$", "", page, flags=re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what mkdocs brings itself, such as the theme's files, to the pages of the repository."""
    paths = sorted(
        path.relative_to(ROOT).as_posix()
        for pattern in (*PAGES, *BESIDE)
        for path in ROOT.glob(pattern)
        if path.is_file()
    )
    return Files(
        [
            *(File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in paths),
            File.generated(config, COMMANDS, content=render_commands()),
            *(file for file in files if file.src_dir != config.docs_dir),
        ]
    )


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the text of a link to a folder: a site has none to show."""
    here = (ROOT / page.file.src_uri).parent
    return re.sub(
        r"\[([^]]+)\]\(([\w./-]+)\)", lambda link: link[1] if (here / link[2]).is_dir() else link[0], markdown
    )
