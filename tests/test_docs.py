"""What the documents and the help texts say to type can be typed, and what they link to is there.

The tutorial's commands are run by tests/test_workflow.py, out of the page itself.
"""

import ast
import inspect
import itertools
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from typer.main import get_command

import fer_search as package
from fer_search.cli import app
from fer_search.configuration import FILE, VARIABLES, read_configuration
from fer_search.recipe import Recipe, parse_overrides
from fer_search.spaces import check_space

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "search_spaces/*.md", "cluster/**/*.md") for path in ROOT.glob(pattern)
)
OURS = {"fer-search", "make"}
LANGUAGES = {"sh", "python", "toml", "text"}
COMMANDS = get_command(app)


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(text: str) -> Iterator:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def code(text: str, language: str) -> list[str]:
    return [token.content for token in parsed(text) if token.type == "fence" and token.info == language]


def typed(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of our commands, and whether a command must be whole: in a sentence it may be its name alone."""
    for token in parsed(text):
        if token.type == "code_inline":
            yield from ((words, False) for words in simple_commands(token.content))
        elif token.type == "code_block" or (token.type == "fence" and token.info == "sh"):
            yield from ((words, True) for words in simple_commands(token.content))


def simple_commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each of our commands in a shell's script."""
    for line in script.replace("\\\n", " ").splitlines():
        if OURS.isdisjoint(line.split()):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, group in itertools.groupby(lexer, key=lambda word: set(word) <= set("();<>|&")):
            words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), group))
            if not is_operator and words and words[0] in OURS:
                yield words


def mistake(words: list[str], *, whole: bool = True) -> str | None:
    """Return what the command line's own parser has against the words after `fer-search`, or None."""
    dots = [word.endswith("...") and not before.startswith("--") for before, word in itertools.pairwise(["", *words])]
    whole = whole and not any(dots) and "--help" not in words  # dots stand for what a reader knows
    words = [word for word, is_dots in zip(words, dots, strict=True) if not is_dots and word != "--help"]
    command, name = COMMANDS, "fer-search"
    while hasattr(command, "commands"):
        if not words:
            return "names no command" if whole else None
        name, *words = words
        if any(name in parameter.opts for parameter in command.params):  # such as --install-completion
            return None
        if name not in command.commands:
            return f"{name}: is no command"
        command = command.commands[name]
    try:
        context = command.make_context(name, words)
    except Exception as error:  # the parser's own, whose classes typer keeps to itself
        missing = type(error).__name__ == "MissingParameter"
        return None if missing and not whole else f"{type(error).__name__}: {getattr(error, 'message', error)}"
    if name == "submit":
        return mistake(context.args, whole=whole)
    given = context.params
    space = given.get("space")
    if space is not None and str(space).startswith("search_spaces/") and not (ROOT / space).is_file():
        return f"{space}: is not there"
    unknown = parse_overrides(given.get("overrides") or []).keys() - Recipe.model_fields.keys()
    return f"{sorted(unknown)}: are no fields of the recipe" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_every_command_on_a_page_is_one_that_the_command_line_takes(page):
    found = [(words, whole) for words, whole in typed(page.read_text()) if words[0] == "fer-search"]
    assert [(shlex.join(words), wrong) for words, whole in found if (wrong := mistake(words[1:], whole=whole))] == []


def test_commands_are_found_wherever_they_stand_and_mistakes_in_them_are_seen():
    page = """
`fer-search resume NAME` and `fer-search search ... --dry-run`

    A=1 fer-search list; fer-search lst  # comment

- item

    ```sh
    fer-search retrain first \\
        --epoch 3 && fer-search recipe epoch=3 > mine.toml
    ```

```sh
fer-search submit resume first --trial 3
fer-search search search_spaces/none.toml --name x
```
`fer-search export` and

    fer-search export
"""
    verdicts = [mistake(words[1:], whole=whole) for words, whole in typed(page)]
    wrong = [re.split("[ :]", verdict)[0] if verdict else None for verdict in verdicts]
    assert wrong == [
        None, None, None, "lst", "NoSuchOption", "['epoch']", "NoSuchOption", "search_spaces/none.toml", None,
        "MissingParameter",
    ]  # fmt: skip


def test_every_target_of_make_on_a_page_is_one():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    commands = [words for page in PAGES for words, _ in typed(page.read_text()) if words[0] == "make"]
    targets = sorted({word for words in commands for word in words[1:]})
    assert {"demo", "test", "check"} <= set(targets)
    done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_what_a_page_links_to_is_in_the_repository_and_every_block_names_its_language(page):
    tokens = list(parsed(page.read_text()))
    links = set(re.findall(' src="(.*?)"', page.read_text())) | {
        token.attrs.get("href") or token.attrs.get("src") for token in tokens if token.type in ("link_open", "image")
    }
    paths = {link.partition("#")[0] for link in links if not re.match("[a-z]+:", link)}
    assert [path for path in sorted(paths) if not (page.parent / path).exists()] == []
    assert {token.info for token in tokens if token.type == "fence"} <= LANGUAGES


def test_python_on_a_page_calls_what_there_is():
    blocks = [block for page in PAGES for block in code(page.read_text(), "python")]
    checked = []
    for block in blocks:
        tree = ast.parse(block)
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "fer_search"]
        names = {alias.name for node in imports for alias in node.names}
        assert names <= set(package.__all__)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                function = getattr(package, node.func.id)
                inspect.signature(function).bind(*node.args, **{word.arg: word.value for word in node.keywords})
                checked.append(node.func.id)
    assert {"search", "retrain", "export", "Predictor"} <= set(checked)


@pytest.mark.parametrize("page", [page for page in PAGES if code(page.read_text(), "toml")], ids=by_name)
def test_a_space_on_a_page_is_valid(page):
    tables = [tomllib.loads(block) for block in code(page.read_text(), "toml")]
    assert all(check_space(table, source=page).domains for table in tables if not VARIABLES.keys() & table)


def test_the_file_of_a_project_on_a_page_is_valid(tmp_path):
    (block,) = code((ROOT / "docs/how-to/shell.md").read_text(), "toml")
    (tmp_path / FILE).write_text(block)
    assert read_configuration(tmp_path).keys() == VARIABLES.keys()


def leaves(command, *path: str) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, each in getattr(command, "commands", {}).items():
        yield from leaves(each, *path, name)
    if not hasattr(command, "commands"):
        yield path, command


@pytest.mark.parametrize(
    ("path", "command"), leaves(COMMANDS), ids=lambda value: "_".join(value) if isinstance(value, tuple) else ""
)
def test_every_commands_help_has_an_example_that_can_be_typed(path, command):
    said, _, shown = command.help.partition("Example")
    examples = [words for words, _ in typed(shown)]
    assert any(words[1 : len(path) + 1] == list(path) for words in examples)
    assert [found for words in examples if (found := mistake(words[1:]))] == []
    assert [found for words, _ in typed(said) if (found := mistake(words[1:], whole=False))] == []


@pytest.mark.parametrize("path", [("compare",), ("data", "check"), ("submit",)], ids=" ".join)
def test_the_example_is_shown(fer_search, path):
    done = fer_search(*path, "--help")
    assert (done.returncode, "Example" in done.stdout, f"fer-search {' '.join(path)}" in done.stdout) == (0, True, True)


def test_what_is_generated_has_its_place_on_a_page():
    markers = {
        name for page in PAGES for name in re.findall("^<!-- generated: (.*) -->$", page.read_text(), re.MULTILINE)
    }
    assert markers == set(runpy.run_path(str(ROOT / "docs/hooks.py"))["GENERATED"])
    assert "\n::: fer_search\n" in (ROOT / "docs/reference/python.md").read_text()  # all that is in __all__


def test_what_makes_the_pictures_finds_what_it_uses():
    assert callable(runpy.run_path(str(ROOT / "tests/screenshots.py"))["take_pictures"])
