"""Load the files of pingkit: a state dict and JSON."""

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
from plug_sklearn.persistence._files import Arrays, Expected, check_values, naming
from plug_sklearn.persistence._probe_tables import expect_weights
from plug_sklearn.persistence._tables import Probability, Size, explain_validation

Ratio = Annotated[float, Field(gt=0, le=1e6)]


class _Description(BaseModel):
    # Users may have added keys of their own, which are ignored.
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    num_classes: Annotated[int, Field(ge=2, le=2**40)] = 2
    n_examples: Size | None = None
    target_ratio: Ratio = 5.0
    p_drop: Probability = 0.3
    # What pingkit assumes for files without this key: its MLP's own default is 128.
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

#: Names of blocks of the networks here, with pingkit's names.
_MLP_BLOCKS = {
    "entry.0": "fc1",
    "entry.1": "fc2",
    "residual.0": "res.0",
    "residual.1": "res.1",
    "head": "out.0",
    "output": "out.1",
}
#: Blocks whose weights here have an axis for members, and inputs before outputs.
_LINEAR = ("entry.", "residual.", "head.", "output.")
_CNN_BLOCKS = {
    "norm": "encoder.layer_norm",
    "encoder": "encoder.backbone",
    "head": "classifier",
    "output": "classifier.6",
}


def load_pingkit(found: dict[str, Any], weights: Path, device: str) -> BaseEstimator:
    """Make a fitted estimator from pingkit's files.

    It has one plain network and the classes 0, 1 and so on, and takes the same flat
    features as pingkit's.
    """
    foreign = sorted(key for key in found if key.startswith(_OF_CUSTOM_MODELS))
    if found.get("model_type") == "custom" or foreign:
        raise ValueError(
            "it describes a custom model, whose source code is never run here. Only "
            f"'mlp' and 'cnn' are loaded. Got {foreign or 'no more'}"
        )
    try:
        description = _READER.validate_python({"model_type": "mlp", **found})
    except ValidationError as error:
        raise ValueError(explain_validation(error)) from None
    if isinstance(description, _MLP):
        classifier, blocks = _make_mlp(description), _MLP_BLOCKS
    else:
        classifier, blocks = _make_cnn(description), _CNN_BLOCKS
    classifier.set_params(
        target_ratio=description.target_ratio,
        width_cap=description.width_cap,
        dropout=description.p_drop,
        n_members=1,
        linear_path=False,
        input_dropout=0.0,
        calibrate=False,
        device=device,
    )
    classifier._validate_params()
    # A range has a length and takes no memory, whatever number the JSON holds.
    classifier.classes_ = range(description.num_classes)
    sizes = classifier._size_network(description.n_examples)
    expected = expect_weights(classifier._network, sizes)
    with naming(weights):
        arrays = _arrange(_read_state(weights), expected, blocks)
    classifier.classes_ = np.arange(description.num_classes)
    classifier.n_iter_ = classifier.best_epoch_ = 0
    classifier.monitor_ = None
    classifier._restore_net(sizes, arrays)
    return classifier


def _make_mlp(description: _MLP) -> Any:  # noqa: ANN401 - an untyped class
    classifier = plug_sklearn.PlugMLPClassifier(lr=0.002, weight_decay=0.01)
    classifier.n_features_in_ = description.input_dim
    classifier.input_shape_ = (description.input_dim,)
    return classifier


def _make_cnn(description: _CNN) -> Any:  # noqa: ANN401 - an untyped class
    n_layers, n_parts = (
        axis if isinstance(axis, int) else len(axis)
        for axis in (description.layers, description.parts)
    )
    classifier = plug_sklearn.PlugCNNClassifier(
        n_layers=n_layers,
        n_parts=n_parts,
        proj_mult=description.proj_mult,
        conv_over="units",
        contrastive_weight=0.1,
        patience=20,
    )
    classifier.n_features_in_ = n_layers * n_parts * description.hidden_size
    classifier.input_shape_ = (classifier.n_features_in_,)
    return classifier


def _read_state(weights: Path) -> dict[str, Tensor]:
    """Read a state dict of plain tensors on the CPU."""
    try:
        _check_sums(weights)
        state: dict[str, Tensor] = torch.load(
            weights, map_location="cpu", weights_only=True
        )
    except pickle.UnpicklingError:
        raise ValueError(
            "it holds more than tensors, and such a pickle could run code"
        ) from None
    except Exception as error:  # torch raises errors of many kinds
        raise ValueError(f"it is not a complete torch file ({error})") from None
    whole = isinstance(state, dict) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        # A few bytes could otherwise be expanded to a large tensor.
        and value.is_contiguous()
        for name, value in state.items()
    )
    if not whole:
        raise ValueError("it is not a state dict of plain tensors")
    return state


def _check_sums(weights: Path) -> None:
    """Refuse a file with a changed byte, or that unpacks to more than its own size.

    torch does not compress files, but reads compressed ones.
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
    """Return the weights with the names and shapes that they have here."""
    arrays: Arrays = {}
    names = {
        name: name.replace(ours, theirs, 1)
        for name in expected
        for ours, theirs in blocks.items()
        if name.startswith(f"{ours}.")
    }
    if set(names.values()) != set(state):
        differing = sorted(set(names.values()) ^ set(state))
        raise ValueError(f"it has missing or unknown tensors: {differing}")
    for name, theirs in names.items():
        value, shape = state[theirs].detach().numpy(), expected[name].shape
        is_linear = name.startswith(_LINEAR) and len(shape) > 1
        must_be = shape[:0:-1] if is_linear else shape
        if (value.shape, value.dtype) != (must_be, np.dtype(expected[name].dtype)):
            raise ValueError(
                f"its tensor {theirs!r} must be {must_be} of {expected[name].dtype}, "
                f"as in the JSON. Got {value.shape} of {value.dtype} instead"
            )
        arrays[name] = value.T[None] if is_linear else value
    check_values(arrays)
    # Weights that plain networks do not have get their initial values.
    for name in set(expected) - set(names):
        fill = np.zeros if name.endswith("mean") else np.ones
        arrays[name] = fill(expected[name].shape, dtype=np.float32)
    return arrays
