"""Fitted estimators in files that are safe to load: safetensors and JSON."""

import json
import os
from hashlib import sha256
from pathlib import Path

from sklearn.base import BaseEstimator

from plug_sklearn._devices import check_device
from plug_sklearn._provenance import list_versions
from plug_sklearn.persistence._files import (
    name_file,
    naming,
    read_json,
    read_tensors,
    write_file,
    write_tensors,
)
from plug_sklearn.persistence._pingkit import load_pingkit
from plug_sklearn.persistence._schema import (
    FORMAT,
    describe_estimator,
    validate_artifact,
)

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


def save_artifacts(
    estimator: BaseEstimator, path: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Save a fitted estimator as tensors and JSON, which are safe to load.

    ``history_`` is not saved, nor are the parameters of where and how an estimator
    runs: ``device``, ``n_jobs``, ``store`` and ``verbose``, and a pipeline's
    ``memory``. Callbacks and scorers are code: to save an estimator that holds some,
    remove them first, by ``set_params(callbacks=None)``.

    Parameters
    ----------
    estimator : BaseEstimator
        A fitted :class:`PlugMLPClassifier`, :class:`PlugCNNClassifier`,
        :class:`PlugTokenClassifier`, :class:`LayerAggregator`,
        :class:`HFEmbeddingTransformer`, scikit-learn's ``StandardScaler``, or a
        ``Pipeline`` of them.
    path : str or Path
        Path of both files without their suffixes. Folders are made.

    Returns
    -------
    tensors : Path
        ``path`` + ``".safetensors"``.
    description : Path
        ``path`` + ``".json"``: versions, geometry, hyperparameters and classes.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If the estimator, or a step, is of another class; or if a hyperparameter is not
        a plain value, or would let the file run code when it is used.

    See Also
    --------
    load_artifacts : Reads them.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from plug_sklearn import PlugMLPClassifier, load_artifacts, save_artifacts
    >>> X = np.random.default_rng(0).normal(size=(40, 4))
    >>> probe = PlugMLPClassifier(max_epochs=2).fit(X, X[:, 0] > 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tensors, description = save_artifacts(probe, f"{folder}/probe")
    ...     loaded = load_artifacts(f"{folder}/probe")
    >>> tensors.name, description.name
    ('probe.safetensors', 'probe.json')
    >>> bool((loaded.predict(X) == probe.predict(X)).all())
    True
    """
    tensors_path, description = (
        name_file(path, suffix) for suffix in (".safetensors", ".json")
    )
    values, arrays = describe_estimator(estimator)
    tensors = write_tensors(arrays)
    artifact = {
        "format": FORMAT,
        "versions": dict(list_versions()),
        "sha256": _digest(tensors, values),
        "estimator": values,
    }
    try:
        # Files that could not be read are not written.
        table = validate_artifact(artifact).estimator
        table.restore(read_tensors(tensors, table.expect_tensors()), "cpu")
    except ValueError as error:
        raise ValueError(f"The 'estimator' given to save_artifacts: {error}.") from None
    # The JSON comes last: until then, its checksum shows that the files do not match.
    write_file(tensors_path, tensors)
    text = json.dumps(artifact, indent=1, allow_nan=False)
    write_file(description, f"{text}\n".encode())
    return tensors_path, description


def load_artifacts(path: str | os.PathLike[str], device: str = "cpu") -> BaseEstimator:
    """Load a fitted estimator from files that :func:`save_artifacts` wrote.

    Untrusted files cannot run code: the JSON is checked against a strict schema, the
    tensors against the shapes in the JSON, and both against a checksum. Files of
    pingkit, a ``.pt`` beside its JSON, are read too if they hold only the tensors of
    its own MLP or CNN.

    Parameters
    ----------
    path : str or Path
        Path of both files, with or without the suffix of one.
    device : str, default="cpu"
        The ``device`` parameter of the estimator, such as ``"auto"`` or ``"cuda"``.

    Returns
    -------
    BaseEstimator
        The fitted estimator, which predicts the same probabilities. It has no
        ``history_``, and its hyperparameters have lists in place of arrays and tuples.

    Raises
    ------
    FileNotFoundError
        If there is no such pair of files.
    ValueError
        If a file is of another format, incomplete or changed, or if it holds a value
        that is not allowed; or if torch knows no such device.

    See Also
    --------
    save_artifacts : Writes the files.

    Examples
    --------
    >>> from plug_sklearn import load_artifacts
    >>> pipe = load_artifacts("artifacts/probe", device="auto")  # doctest: +SKIP
    >>> pipe.predict_proba(["Paris is in France."])  # doctest: +SKIP
    """
    check_device(device, "load_artifacts")
    description = name_file(path, ".json")
    candidates = [name_file(path, suffix) for suffix in WEIGHT_SUFFIXES]
    weights = next((file for file in candidates if file.is_file()), None)
    if weights is None or not description.is_file():
        missing = [file.name for file in candidates] if weights is None else []
        listed = " or ".join(missing or [description.name])
        raise FileNotFoundError(f"There is no {listed} in {description.parent}.")
    with naming(description):
        found = read_json(description)
        if weights.suffix != ".safetensors":
            return load_pingkit(found, weights, device)
        artifact = validate_artifact(found)
        expected = artifact.estimator.expect_tensors()
    with naming(weights):
        data = weights.read_bytes()
        tensors = read_tensors(data, expected)
    with naming(description):
        estimator = artifact.estimator.restore(tensors, device)
        # The checksum comes last, since errors of single values are more helpful.
        if _digest(data, found["estimator"]) != artifact.sha256:
            raise ValueError(
                f"it or {weights.name} is not what was saved: their checksum differs"
            )
    return estimator


def _digest(tensors: bytes, values: object) -> str:
    """Compute the checksum of the tensors and of the table of the estimator."""
    text = json.dumps(values, sort_keys=True)
    return sha256(tensors + text.encode()).hexdigest()
