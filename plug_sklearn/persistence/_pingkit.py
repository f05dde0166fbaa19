"""Files of pingkit, a state dict beside JSON → fitted estimators."""

import pickle
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sklearn.base import BaseEstimator
from torch import Tensor

import plug_sklearn
from plug_sklearn.classifiers._sizing import size_cnn, size_mlp
from plug_sklearn.persistence._files import naming
from plug_sklearn.persistence._restoring import expect_weights
from plug_sklearn.persistence._schema import Probability, Size, explain_validation
from plug_sklearn.persistence._tensors import Arrays, Expected, check_values

Ratio = Annotated[float, Field(gt=0, le=1e6)]


class _Description(BaseModel):
    # Its users may add keys of their own, which mean nothing here.
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    num_classes: Annotated[int, Field(ge=2, le=2**40)] = 2
    n_examples: Size | None = None
    target_ratio: Ratio = 5.0
    p_drop: Probability = 0.3
    # The MLP's own default is 128, but this is what its files mean without the key.
    width_cap: Size = 64


class _MLP(_Description):
    model_type: Literal["mlp"]
    input_dim: Size


class _CNN(_Description):
    model_type: Literal["cnn"]
    # Names, or only their number.
    parts: Size | Annotated[list[Any], Field(min_length=1)]
    layers: Size | Annotated[list[Any], Field(min_length=1)]
    hidden_size: Size
    proj_mult: Size = 2


_READER: TypeAdapter[_MLP | _CNN] = TypeAdapter(
    Annotated[_MLP | _CNN, Field(discriminator="model_type")]
)

_OF_CUSTOM_MODELS = ("factory_", "custom_model", "source")

#: What is here named as it is there, of one network.
_MLP_BLOCKS = {
    "entry.0": "fc1",
    "entry.1": "fc2",
    "residual.0": "res.0",
    "residual.1": "res.1",
    "head": "out.0",
    "output": "out.1",
}
#: Blocks that here have an axis for members, and inputs before outputs.
_LINEAR = ("entry.", "residual.", "head.", "output.")
#: What the networks of here can do beyond it.
_PLAIN = {
    "n_members": 1,
    "linear_path": False,
    "input_dropout": 0.0,
    "n_kept": None,
}
_CNN_BLOCKS = {
    "norm": "encoder.layer_norm",
    "encoder": "encoder.backbone",
    "head": "classifier",
    "output": "classifier.6",
}


def load_pingkit(found: dict[str, Any], weights: Path, device: str) -> BaseEstimator:
    """Make a fitted estimator of pingkit's files.

    Parameters
    ----------
    found : dict
        What the JSON holds.
    weights : Path
        The ``.pt`` or ``.pth``.
    device : str
        The estimator's ``device``.

    Returns
    -------
    PlugMLPClassifier or PlugCNNClassifier
        Of one plain network and classes 0, 1, ...; it takes the flat features that
        pingkit's takes, in their order.

    Raises
    ------
    ValueError
        If the JSON is of a custom model, or the weights are not those it describes.
    """
    foreign = sorted(key for key in found if key.startswith(_OF_CUSTOM_MODELS))
    if found.get("model_type") == "custom" or foreign:
        raise ValueError(
            "it is of a custom model, whose source code is never run here: only "
            f"'mlp' and 'cnn' are loaded. Got {foreign or 'no more'}"
        )
    try:
        description = _READER.validate_python({"model_type": "mlp", **found})
    except ValidationError as error:
        raise ValueError(explain_validation(error)) from None
    if isinstance(description, _MLP):
        classifier, sizes = _describe_mlp(description)
        blocks = _MLP_BLOCKS
    else:
        classifier, sizes = _describe_cnn(description)
        blocks = _CNN_BLOCKS
    classifier.set_params(dropout=description.p_drop, device=device)
    classifier._validate_params()
    sizes |= {"n_classes": description.num_classes, "dropout": description.p_drop}
    expected = expect_weights(classifier._network, sizes)
    with naming(weights):
        arrays = _arrange(_read_state(weights), expected, blocks)
    classifier.classes_ = np.arange(description.num_classes)
    classifier.n_iter_ = classifier.best_epoch_ = 0
    classifier.monitor_ = None
    classifier._restore_net(sizes, arrays)
    return classifier


def _describe_mlp(description: _MLP) -> tuple[Any, dict[str, Any]]:
    classifier = plug_sklearn.PlugMLPClassifier(
        target_ratio=description.target_ratio,
        width_cap=description.width_cap,
        n_members=1,
        linear_path=False,
        input_dropout=0.0,
        lr=0.002,
        weight_decay=0.01,
        calibrate=False,
    )
    n_features = description.input_dim
    widths = size_mlp(
        description.n_examples,
        n_features,
        target_ratio=description.target_ratio,
        width_cap=description.width_cap,
    )
    classifier.input_shape_, classifier.n_features_in_ = (n_features,), n_features
    return classifier, {"n_features": n_features, **_PLAIN, **vars(widths)}


def _describe_cnn(description: _CNN) -> tuple[Any, dict[str, Any]]:
    n_layers, n_parts = (
        axis if isinstance(axis, int) else len(axis)
        for axis in (description.layers, description.parts)
    )
    classifier = plug_sklearn.PlugCNNClassifier(
        n_layers=n_layers,
        n_parts=n_parts,
        target_ratio=description.target_ratio,
        width_cap=description.width_cap,
        proj_mult=description.proj_mult,
        conv_over="units",
        n_members=1,
        linear_path=False,
        input_dropout=0.0,
        contrastive_weight=0.1,
        patience=20,
        calibrate=False,
    )
    widths = size_cnn(
        description.n_examples,
        target_ratio=description.target_ratio,
        width_cap=description.width_cap,
        proj_mult=description.proj_mult,
    )
    n_features = n_layers * n_parts * description.hidden_size
    classifier.input_shape_, classifier.n_features_in_ = (n_features,), n_features
    geometry = {
        "n_layers": n_layers,
        "n_parts": n_parts,
        "hidden_size": description.hidden_size,
        "conv_over": "units",
        "normalise": True,
        "affine": True,
    }
    return classifier, {**geometry, **_PLAIN, **vars(widths)}


def _read_state(weights: Path) -> dict[str, Tensor]:
    """Read a state dict, of whole tensors on the CPU."""
    try:
        _check_sums(weights)
        state: dict[str, Tensor] = torch.load(
            weights, map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError:
        raise ValueError(
            "it is no file of tensors alone, and a pickle of more could run code"
        ) from None
    except Exception as error:  # torch raises what its readers happen to meet
        raise ValueError(f"it is no whole file of torch ({error})") from None
    whole = isinstance(state, dict) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        # Otherwise a few bytes could claim to be a large tensor.
        and value.is_contiguous()
        for name, value in state.items()
    )
    if not whole:
        raise ValueError("it is no state dict of plain tensors")
    return state


def _check_sums(weights: Path) -> None:
    """Refuse a file with a changed byte, or one that unpacks to more than it is.

    torch writes members as they are, and reads compressed ones too.
    """
    if zipfile.is_zipfile(weights):
        with zipfile.ZipFile(weights) as members:
            unpacked = sum(info.file_size for info in members.infolist())
            if unpacked > weights.stat().st_size:
                raise ValueError(f"it would unpack to {unpacked} bytes")
            changed = members.testzip()
        if changed is not None:
            raise ValueError(f"the checksum of {changed} differs")


def _arrange(
    state: dict[str, Tensor], expected: dict[str, Expected], blocks: dict[str, str]
) -> Arrays:
    """Give the weights the names and shapes that they have here."""
    arrays: Arrays = {}
    names = {
        name: name.replace(ours, theirs, 1)
        for name in expected
        for ours, theirs in blocks.items()
        if name.startswith(f"{ours}.")
    }
    if set(names.values()) != set(state):
        differing = sorted(set(names.values()) ^ set(state))
        raise ValueError(f"it lacks tensors, or has unknown ones: {differing}")
    for name, theirs in names.items():
        value, shape = state[theirs].detach().numpy(), expected[name].shape
        is_linear = name.startswith(_LINEAR) and len(shape) > 1
        must_be = shape[:0:-1] if is_linear else shape
        if (value.shape, value.dtype) != (must_be, np.dtype(expected[name].dtype)):
            raise ValueError(
                f"its tensor {theirs!r} must be {must_be} of {expected[name].dtype}, "
                f"as the JSON has it. Got {value.shape} of {value.dtype} instead"
            )
        arrays[name] = value.T[None] if is_linear else value
    check_values(arrays)
    # What the plain networks do not have, as it is before it is learnt.
    for name in set(expected) - set(names):
        fill = np.zeros if name.endswith("mean") else np.ones
        arrays[name] = fill(expected[name].shape, dtype=np.float32)
    return arrays
