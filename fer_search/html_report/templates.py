"""The templates of pages and of what a notebook shows."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def template(name: str) -> Template:
    """Return a template of this package; what it is given is escaped, and must be all that it names."""
    environment = Environment(
        loader=PackageLoader("fer_search", "html_report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
