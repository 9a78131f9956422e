"""What `help` says of the public names."""

import inspect
import re

import pytest

import fer_search

FUNCTIONS = [name for name in fer_search.__all__ if inspect.isfunction(getattr(fer_search, name))]
CLASSES = [name for name in fer_search.__all__ if inspect.isclass(getattr(fer_search, name))]


def test_every_public_name_but_the_one_constant_is_a_function_or_a_class():
    assert {*fer_search.__all__} - {*FUNCTIONS, *CLASSES} == {"EMOTIONS"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_help_names_each_parameter_and_what_is_raised(name):
    function = getattr(fer_search, name)
    text = inspect.getdoc(function)
    words = set(re.findall(r"\w+", text))
    assert [parameter for parameter in inspect.signature(function).parameters if parameter not in words] == []
    assert re.search(r"Raises:?\s+InvalidInput", text), text


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_what_it_is_and_so_does_each_of_its_public_attributes(name):
    kind = getattr(fer_search, name)
    described = (property, classmethod, staticmethod)
    own = [
        key
        for key, value in vars(kind).items()  # not what is inherited, of which pydantic's is much
        if not key.startswith("_") and (callable(value) or isinstance(value, described))
    ]
    assert inspect.getdoc(kind)
    assert [key for key in own if not inspect.getdoc(getattr(kind, key))] == []
