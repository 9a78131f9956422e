"""The README says what the code says."""

import re
import subprocess
from pathlib import Path

from fer_search.recipe import field_table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_the_field_table_is_the_generated_one():
    between = re.search(r"<!-- recipe fields -->\n(.*?)\n<!-- end of recipe fields -->", README, re.DOTALL)
    assert between is not None
    assert between[1] == field_table(), "run: python tests/test_readme.py"


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"`((?:fer_search|tests|search_spaces)/[\w./]*)`", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_example_space_of_the_format_is_valid():
    import tomllib

    from fer_search.spaces import check_space

    text = (ROOT / "search_spaces" / "README.md").read_text()
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert set(check_space(tomllib.loads(block[1]), source=Path("README.md")).domains) == {
        "max_lr", "shift_pixels", "optimizer",
    }  # fmt: skip


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from fer_search.cli import app

    commands = set(re.findall(r"fer-search ([a-z][a-z-]*)", README))
    assert commands <= set(get_command(app).commands)


def test_nothing_generated_is_tracked():
    if not (ROOT / ".git").exists():
        return
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"__pycache__|\.pyc|egg-info|mlflow\.db|^runs/", tracked, re.MULTILINE)


if __name__ == "__main__":
    table = f"<!-- recipe fields -->\n{field_table()}\n<!-- end of recipe fields -->"
    pattern = r"<!-- recipe fields -->.*?<!-- end of recipe fields -->"
    (ROOT / "README.md").write_text(re.sub(pattern, lambda _: table, README, flags=re.DOTALL))
