"""Docstrings are the API reference: a sentence, every parameter, and what numpydoc can read."""

import ast
import inspect
import re
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import ftlearn

docscrape = pytest.importorskip("numpydoc.docscrape", reason="numpydoc reads the docstrings")
SECTIONS = {
    ast.Return: "Returns",
    ast.Yield: "Yields",
    ast.YieldFrom: "Yields",
    ast.Raise: "Raises",
}
MODULES = sorted(p.stem for p in Path(ftlearn.__file__).parent.glob("*.py") if p.stem[0] != "_")


def exported():
    """(module.name, thing, its parameters) of what the modules export, with public methods."""
    for module in MODULES:
        found = import_module(f"ftlearn.{module}")
        for name in found.__all__:
            thing = getattr(found, name)
            if inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing)):
                yield f"{module}.{name}", thing, parameters(thing)
            if inspect.isclass(thing) and thing.__module__ == found.__name__:
                yield from methods(f"{module}.{name}", thing)


def methods(name, kind):
    """Public methods and properties that a class defines itself."""
    for key, value in vars(kind).items():
        own = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if key[0] != "_" and inspect.isfunction(own) and own.__module__ == kind.__module__:
            bound = 0 if isinstance(value, staticmethod) else 1
            yield f"{name}.{key}", own, parameters(own)[bound:]


def parameters(thing):
    """Names in the signature; None where it is a builtin's, as for tuples and exceptions."""
    made = (thing.__init__, thing.__new__) if inspect.isclass(thing) else (inspect.unwrap(thing),)
    own = any(map(inspect.isfunction, made))
    return [name for name in inspect.signature(thing).parameters if name != "_"] if own else None


def documented(thing):
    """Names in the section Parameters; `rows, columns : int` are two."""
    doc = docscrape.NumpyDocString(inspect.getdoc(thing) or "")
    return [n.strip().lstrip("*") for p in doc["Parameters"] for n in p.name.split(",")]


def inside(node):
    """Nodes of a function itself, not of the functions and classes in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from inside(child)


def does(thing):
    """Which sections the code of a function asks for; of a class none."""
    if inspect.isclass(thing):
        return set()
    (own,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body
    nodes = [n for n in inside(own) if ast.unparse(n) not in ("return", "return None")]
    return {SECTIONS[type(n)] for n in nodes if type(n) in SECTIONS}


def sections(thing):
    """Which of these sections a docstring has."""
    doc = docscrape.NumpyDocString(inspect.getdoc(thing) or "")
    return {name for name in SECTIONS.values() if doc[name]}


EXPORTED = {name: (thing, taken) for name, thing, taken in exported()}
PUBLIC = {f"{ftlearn._WHERE[name]}.{name}" for name in ftlearn.__all__}


@pytest.mark.parametrize("name", EXPORTED)
def test_the_first_line_is_a_sentence(name):
    first = (inspect.getdoc(EXPORTED[name][0]) or "").partition("\n")[0]
    assert len(first) > 15 and first.endswith("."), f"{name} begins with {first!r}"
    assert not re.search(r"(?<!et al)[.!?] [A-Z]", first), f"{name} begins with two sentences"


@pytest.mark.parametrize("name", EXPORTED)
def test_a_list_of_parameters_is_that_of_the_signature(name):
    """numpydoc warns of sections that it does not know, and warnings are errors."""
    thing, taken = EXPORTED[name]
    names = documented(thing)
    exact = not names or taken is None or sorted(names) == sorted(taken)
    assert exact, f"{name} takes {taken}, not {names}"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_two_parameters_are_documented(name):
    thing, taken = EXPORTED[name]
    assert len(taken or ()) < 2 or documented(thing), f"{name} takes {', '.join(taken)}"


@pytest.mark.parametrize("name", EXPORTED)
def test_a_type_is_a_type_and_what_it_means_comes_below(name):
    doc = docscrape.NumpyDocString(inspect.getdoc(EXPORTED[name][0]) or "")
    long = [p.type for p in [*doc["Parameters"], *doc["Returns"]] if len(p.type) > 60]
    assert not long, f"{name}: write what it is on a line of its own, below {long}"


@pytest.mark.parametrize("name", EXPORTED)
def test_an_error_that_a_function_raises_is_documented(name):
    thing, _ = EXPORTED[name]
    assert "Raises" not in does(thing) - sections(thing), f"{name} raises: say what, and when"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_what_a_function_returns_is_documented(name):
    thing, _ = EXPORTED[name]
    given = does(thing) & {"Returns", "Yields"}
    assert not given or given & sections(thing), f"{name} returns or yields: say what"
