import inspect
import re

import pytest
from numpydoc.docscrape import FunctionDoc, NumpyDocString
from numpydoc.validate import validate

import plug_sklearn
import plug_sklearn.embedding

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


def public_objects() -> list[str]:
    names = []
    for module in (plug_sklearn, plug_sklearn.embedding):
        for name in module.__all__:
            path = f"{module.__name__}.{name}"
            names.append(path)
            thing = getattr(module, name)
            if inspect.isclass(thing):
                names += [
                    f"{path}.{method}"
                    for method, member in inspect.getmembers(thing, callable)
                    if not method.startswith(("_", "set_"))
                    and method not in INHERITED
                    and getattr(member, "__module__", "").startswith("plug_sklearn")
                ]
    return names


ESTIMATORS = [getattr(plug_sklearn, name) for name in plug_sklearn.__all__]


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


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_class_has_an_example_and_what_to_see_also(estimator: type) -> None:
    documentation = NumpyDocString(inspect.getdoc(estimator))
    assert documentation["Examples"]
    assert documentation["See Also"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_methods_document_their_arguments(estimator: type) -> None:
    for name, method in inspect.getmembers(estimator, inspect.isfunction):
        ours = method.__module__.startswith("plug_sklearn")
        if name.startswith("_") or not ours:
            continue
        documented = [p.name for p in FunctionDoc(method)["Parameters"]]
        listed = [part for name in documented for part in name.split(", ")]
        assert listed == [
            p for p in inspect.signature(method).parameters if p != "self"
        ]
