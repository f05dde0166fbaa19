"""Fitted estimators ⇄ two files that are safe to load: safetensors and JSON."""

import json
import os
from hashlib import sha256
from pathlib import Path

from sklearn.base import BaseEstimator

from plug_sklearn._devices import check_device
from plug_sklearn._provenance import list_versions
from plug_sklearn.persistence._describing import describe_estimator
from plug_sklearn.persistence._files import name_file, naming, read_json, write_file
from plug_sklearn.persistence._pingkit import load_pingkit
from plug_sklearn.persistence._restoring import expect_tensors, restore_estimator
from plug_sklearn.persistence._schema import FORMAT, validate_artifact
from plug_sklearn.persistence._tensors import read_tensors, write_tensors

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


def save_artifacts(
    estimator: BaseEstimator, path: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Save a fitted estimator as tensors and JSON, which no one needs to trust.

    Not saved are ``history_``, and where and how an estimator runs: ``device``,
    ``n_jobs``, ``store`` and ``verbose``, and a pipeline's ``memory``. Callbacks and
    scorers are code: an estimator that holds some is not saved until
    ``set_params(callbacks=None)`` takes them off.

    Parameters
    ----------
    estimator : BaseEstimator
        Fitted: :class:`PlugMLPClassifier`, :class:`PlugCNNClassifier`,
        :class:`LayerAggregator`, :class:`HFEmbeddingTransformer`, scikit-learn's
        ``StandardScaler``, or a ``Pipeline`` of them.
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
        If it, or a step, is of another class; if a hyperparameter is no plain value; or
        if it would let the file run code when it is used.

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
    record, arrays = describe_estimator(estimator)
    tensors = write_tensors(arrays)
    artifact = {
        "format": FORMAT,
        "versions": dict(list_versions()),
        "sha256": _digest(tensors, record),
        "estimator": record,
    }
    try:
        # What cannot be read is not written.
        checked = validate_artifact(artifact).estimator
        read = read_tensors(tensors, expect_tensors(checked))
        restore_estimator(checked, read, "cpu")
    except ValueError as error:
        raise ValueError(f"The 'estimator' given to save_artifacts: {error}.") from None
    # The JSON comes last: until it does, its checksum tells that the two do not match.
    write_file(tensors_path, tensors)
    text = json.dumps(artifact, indent=1, allow_nan=False)
    write_file(description, f"{text}\n".encode())
    return tensors_path, description


def load_artifacts(path: str | os.PathLike[str], device: str = "cpu") -> BaseEstimator:
    """Load a fitted estimator from files that :func:`save_artifacts` wrote.

    Nothing in the files can run code: the JSON is checked against a closed schema, the
    tensors against the shapes that it names, and both against a checksum. Files of
    pingkit, a ``.pt`` beside its JSON, are read too: as long as they hold tensors
    alone, of its own MLP or CNN.

    Parameters
    ----------
    path : str or Path
        Path of both files, with or without the suffix of one.
    device : str, default="cpu"
        The ``device`` parameter of what is loaded: ``"auto"``, ``"cpu"``, ``"cuda"``.

    Returns
    -------
    BaseEstimator
        Fitted, with equal probabilities. It has no ``history_``; hyperparameters that
        were arrays or tuples are lists.

    Raises
    ------
    FileNotFoundError
        If there is no such pair of files.
    ValueError
        If a file is of another format, incomplete, changed, or says what it may not;
        or if torch knows no such device.

    See Also
    --------
    save_artifacts : Writes them, and has an example.

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
        expected = expect_tensors(artifact.estimator)
    with naming(weights):
        data = weights.read_bytes()
        tensors = read_tensors(data, expected)
    with naming(description):
        estimator = restore_estimator(artifact.estimator, tensors, device)
        # Last: what is wrong with a value tells more than that it was changed.
        if _digest(data, found["estimator"]) != artifact.sha256:
            raise ValueError(
                f"it or {weights.name} is not what was saved: their checksum differs"
            )
    return estimator


def _digest(tensors: bytes, record: object) -> str:
    """Digest all that decides predictions: a digit of the JSON as well as a weight."""
    text = json.dumps(record, sort_keys=True)
    return sha256(tensors + text.encode()).hexdigest()
