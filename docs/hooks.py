"""What MkDocs does not do by itself: pages from elsewhere in the repository, and pages generated from the code.

A page has the path that it has in the repository, without `docs/`: one relative link leads to it in both places.
"""

import posixpath
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fer_search.recipe import field_table

ELSEWHERE = (
    "README.md", "CHANGELOG.md", "SECURITY.md", "search_spaces/README.md", "cluster/README.md",
    *(f"cluster/{name}/README.md" for name in ("launcher", "kubernetes", "slurm", "mlflow")),
)  # fmt: skip
LINK = re.compile(r"""(?:(?<=\]\()|(?<= src="))(?![a-z]+:|#|/)([^)#\s"]+)""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside `docs/`."""
    for path in ELSEWHERE:
        files.append(File.generated(config, path, abs_src_path=path))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what is generated, and make the repository's relative links those of the site."""
    here = page.file.src_uri
    for name, generate in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, generate())
    folder = posixpath.dirname(here if here in ELSEWHERE else f"docs/{here}")

    def on_the_site(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1])).removeprefix("docs/")
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(on_the_site, markdown)


def commands() -> str:
    """Return what `--help` says of every command, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "fer_search.cli", "utils", "docs", "--name", "fer-search"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return shown.partition("\n")[2]  # without its title


def own_objective() -> str:
    """Return the example as a block of Python."""
    return f"```python\n{Path('docs/examples/own_objective.py').read_text()}```"


GENERATED = {"commands": commands, "own objective": own_objective, "recipe fields": field_table}
