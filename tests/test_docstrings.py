import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass

import pytest
from numpydoc.docscrape import FunctionDoc, NumpyDocString
from numpydoc.validate import validate
from sklearn.base import BaseEstimator

import plug_sklearn
import plug_sklearn.embedding
import plug_sklearn.evaluation
import plug_sklearn.features
import plug_sklearn.generation
import plug_sklearn.persistence

# What numpydoc asks for and not every docstring needs.
LEFT_OUT = {
    "ES01",  # an extended summary, where one line says it
    "SA01",  # See Also, on methods
    "EX01",  # an example of each method; classes have theirs
    "RT03",  # a description of a return value whose type says it
    "GL08",  # a docstring for what is inherited
}
#: Written by scikit-learn.
INHERITED = {
    "get_metadata_routing",
    "get_params",
    "set_params",
    "fit_transform",
    "score",
}

MODULES = (
    plug_sklearn,
    plug_sklearn.embedding,
    plug_sklearn.evaluation,
    plug_sklearn.features,
    plug_sklearn.generation,
    plug_sklearn.persistence,
)


def public_objects() -> list[str]:
    names = []
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if not callable(thing):
                continue
            path = f"{module.__name__}.{name}"
            names.append(path)
            if inspect.isclass(thing):
                names += [
                    f"{path}.{method}"
                    for method, member in inspect.getmembers(thing, callable)
                    if not method.startswith(("_", "set_"))
                    and method not in INHERITED
                    and getattr(member, "__module__", "").startswith("plug_sklearn")
                ]
    return names


PUBLIC = [getattr(plug_sklearn, name) for name in plug_sklearn.__all__]
ESTIMATORS = [
    thing
    for thing in PUBLIC
    if inspect.isclass(thing) and issubclass(thing, BaseEstimator)
]
#: What users call, and what they only receive.
CALLED = [thing for thing in PUBLIC if not is_dataclass(thing)]


@pytest.mark.parametrize("path", public_objects())
def test_docstring_is_valid_numpydoc(path: str) -> None:
    errors = [error for error in validate(path)["errors"] if error[0] not in LEFT_OUT]
    assert not errors


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_documented_parameters_and_defaults_are_the_signature_s(
    estimator: type,
) -> None:
    signature = inspect.signature(estimator)
    documented = NumpyDocString(inspect.getdoc(estimator))["Parameters"]
    assert [parameter.name for parameter in documented] == list(signature.parameters)
    for parameter in documented:
        default = signature.parameters[parameter.name].default
        found = re.search(r"default=(.*)$", parameter.type)
        assert found, f"{parameter.name} documents no default"
        assert found[1].strip("`") in (repr(default), repr(default).replace("'", '"'))


@pytest.mark.parametrize("thing", CALLED)
def test_parameters_are_documented_in_order_with_their_defaults(
    thing: Callable[..., object],
) -> None:
    parameters = inspect.signature(thing).parameters
    documented = NumpyDocString(inspect.getdoc(thing))["Parameters"]
    listed = [name for entry in documented for name in entry.name.split(", ")]
    assert listed == list(parameters)
    for entry in documented:
        default = parameters[entry.name.split(", ")[0]].default
        found = re.search(r"default=(.*)$", entry.type)
        if found:
            shown = found[1].strip("`")
            assert shown in (repr(default), repr(default).replace("'", '"'))
        else:
            elsewhere = entry.type == "see below"
            assert elsewhere or default is inspect.Parameter.empty


@pytest.mark.parametrize("thing", CALLED)
def test_what_is_called_has_an_example_and_what_to_see_also(
    thing: Callable[..., object],
) -> None:
    documentation = NumpyDocString(inspect.getdoc(thing))
    assert documentation["Examples"]
    assert documentation["See Also"]


@pytest.mark.parametrize("thing", [*filter(inspect.isclass, CALLED)])
def test_methods_document_their_arguments(thing: type) -> None:
    for name, method in inspect.getmembers(thing, inspect.isroutine):
        ours = (getattr(method, "__module__", None) or "").startswith("plug_sklearn")
        if name.startswith("_") or not ours:
            continue
        documented = [p.name for p in FunctionDoc(method)["Parameters"]]
        listed = [part.lstrip("*") for n in documented for part in n.split(", ")]
        assert listed == [
            p for p in inspect.signature(method).parameters if p != "self"
        ]
