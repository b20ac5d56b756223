"""A hook of mkdocs: the site has the folders of the repository, so that a link that works there works here, too."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md")
BESIDE = (
    "LICENSE",
    "docs/**/*.png",
    "docs/**/*.svg",
    "deploy/*",
    "benchmarks/*.json",
    "benchmarks/*.toml",
    "benchmarks/peers/*.json",
    "notebooks/*.ipynb",
)
"""Files that pages show or link to."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what mkdocs brings itself, such as the theme's files, to the pages of the repository."""
    paths = sorted(path.relative_to(ROOT).as_posix() for pattern in (*PAGES, *BESIDE) for path in ROOT.glob(pattern))
    return Files(
        [
            *(File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in paths),
            *(file for file in files if file.src_dir != config.docs_dir),
        ]
    )


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the text of a link to a folder: a site has none to show."""
    here = (ROOT / page.file.src_uri).parent
    return re.sub(
        r"\[([^]]+)\]\(([\w./-]+)\)", lambda link: link[1] if (here / link[2]).is_dir() else link[0], markdown
    )
