"""Save and load fitted estimators as safetensors and JSON."""

import json
import os
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, HfApi
from pydantic import Field, ValidationError
from sklearn.base import BaseEstimator

from plug_sklearn._devices import check_device
from plug_sklearn._packages import list_versions
from plug_sklearn.evaluation import CrossValidationReport
from plug_sklearn.persistence._files import (
    name_file,
    naming,
    read_json,
    read_tensors,
    refuse_other_file,
    write_file,
    write_tensors,
)
from plug_sklearn.persistence._hub import (
    CARD,
    NAME,
    SCHEME,
    check_card,
    check_upload,
    download,
    require_own_card,
    write_card,
)
from plug_sklearn.persistence._nested_tables import AnyTable, describe_estimator
from plug_sklearn.persistence._pingkit import load_pingkit
from plug_sklearn.persistence._tables import Table, explain_validation

#: Changes with every release that writes anything differently.
FORMAT = 1
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


class Artifact(Table):
    """The whole JSON."""

    format: Literal[1]
    versions: dict[str, str]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    estimator: AnyTable


def save_artifacts(
    estimator: BaseEstimator,
    path: str | os.PathLike[str],
    *,
    card: CrossValidationReport | None = None,
) -> tuple[Path, Path]:
    """Save a fitted estimator as tensors and JSON, which are safe to load.

    ``history_`` is not saved. Parameters that say where and how an estimator runs are
    not saved either: ``device``, ``n_jobs``, ``store``, ``verbose`` and the ``memory``
    of a pipeline. Callbacks and scorers are code and cannot be saved. Remove them
    first, with ``set_params(callbacks=None)``.

    Parameters
    ----------
    estimator : BaseEstimator
        A fitted :class:`PlugMLPClassifier`, :class:`PlugCNNClassifier`,
        :class:`PlugStackClassifier`, :class:`PlugTokenClassifier`,
        :class:`LayerAggregator` or :class:`HFEmbeddingTransformer`; scikit-learn's
        ``LogisticRegression``, ``RidgeClassifier``, ``LinearDiscriminantAnalysis``,
        ``PCA``, ``StandardScaler``, ``MinMaxScaler``, ``RobustScaler`` or
        ``MaxAbsScaler``; or a ``Pipeline``, ``CalibratedClassifierCV`` or
        ``FixedThresholdClassifier`` of these.
    path : str or Path
        Path of both files, without their suffixes. Missing folders are created.
    card : CrossValidationReport, default=None
        The report of :func:`cross_validation_report` for the estimator. A model card,
        ``README.md`` in the hub's format, is then written next to the files. It says
        what the probe reads, what its scores are, and how to load it.

    Returns
    -------
    tensors : Path
        ``path`` + ``".safetensors"``.
    description : Path
        ``path`` + ``".json"``: versions, shapes, hyperparameters and classes.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If the class of the estimator or of a step is not listed above; or if a
        hyperparameter is not a plain value, or could make the loaded estimator run
        code.
    FileExistsError
        If ``card`` is given, and a ``README.md`` beside the files is not a model card.

    See Also
    --------
    load_artifacts : Reads the files.

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
    check_card(card, "save_artifacts")
    if isinstance(path, str) and path.startswith(SCHEME):
        raise ValueError(
            "The 'path' parameter of save_artifacts must be a path on this machine. "
            f"Got {path!r} instead: push_to_hub uploads an estimator."
        )
    tensors_path, description = (
        name_file(path, suffix) for suffix in (".safetensors", ".json")
    )
    if card is not None:
        require_own_card(description.with_name(CARD))
    values, arrays = describe_estimator(estimator)
    tensors = write_tensors(arrays)
    artifact = {
        "format": FORMAT,
        "versions": dict(list_versions()),
        "sha256": _digest(tensors, values),
        "estimator": values,
    }
    try:
        # Files that could not be loaded are not written.
        table = _validate(artifact).estimator
        table.restore(read_tensors(tensors, table.expect_tensors()), "cpu")
    except ValueError as error:
        raise ValueError(f"The 'estimator' given to save_artifacts: {error}.") from None
    # The JSON comes last: until then, its checksum shows that the files do not match.
    write_file(tensors_path, tensors)
    text = json.dumps(artifact, indent=1, allow_nan=False)
    write_file(description, f"{text}\n".encode())
    if card is not None:
        page = write_card(estimator, card, description.stem)
        write_file(description.with_name(CARD), page.encode())
    return tensors_path, description


def push_to_hub(
    estimator: BaseEstimator,
    repo_id: str,
    *,
    name: str = "probe",
    card: CrossValidationReport | None = None,
    revision: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a fitted estimator to the Hugging Face hub, as tensors and JSON.

    Parameters
    ----------
    estimator : BaseEstimator
        A fitted estimator that :func:`save_artifacts` can save.
    repo_id : str
        ``"owner/name"`` of the repository, which is created if it does not exist.
    name : str, default="probe"
        Name of both files in the repository, without their suffixes. A repository may
        hold several estimators under different names.
    card : CrossValidationReport, default=None
        As in :func:`save_artifacts`. None: a card without scores is uploaded if the
        repository has no ``README.md``.
    revision : str, default=None
        Branch to commit to; None: the main one.
    private : bool, default=None
        Whether a new repository is private; None: the hub's default.
    token : str, default=None
        An access token of the hub; None: the token that ``hf auth login`` stored.
    commit_message : str, default=None
        Message of the commit; None: ``"Add"``, followed by the name.

    Returns
    -------
    str
        The address of this commit, which :func:`load_artifacts` loads from.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If the estimator cannot be saved, or a parameter is invalid. Nothing is
        uploaded then.
    OSError
        If the hub cannot be reached or rejects the upload.

    See Also
    --------
    load_artifacts : Loads the estimator from ``"hf://owner/name"``.

    Examples
    --------
    >>> from plug_sklearn import load_artifacts, push_to_hub
    >>> push_to_hub(pipe, "me/truth-probe", card=report)  # doctest: +SKIP
    'hf://me/truth-probe@5f3c...'
    >>> pipe = load_artifacts("hf://me/truth-probe")  # doctest: +SKIP
    """
    check_card(card, "push_to_hub")
    check_upload(repo_id, name)
    with TemporaryDirectory() as folder:
        # An estimator that cannot be saved is refused before a repository is made.
        files = save_artifacts(estimator, Path(folder) / NAME)
        operations = [
            CommitOperationAdd(f"{name}{file.suffix}", file.read_bytes())
            for file in files
        ]
    place = "" if name == NAME else f"/{name}"
    version = list_versions().get("plug_sklearn")
    api = HfApi(token=token, library_name="plug_sklearn", library_version=version)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if card is not None or not api.file_exists(repo_id, CARD, revision=revision):
        text = write_card(estimator, card, f"{SCHEME}{repo_id}{place}")
        operations.append(CommitOperationAdd(CARD, text.encode()))
    message = commit_message or f"Add {name}"
    commit = api.create_commit(
        repo_id, operations, commit_message=message, revision=revision
    )
    return f"{SCHEME}{repo_id}@{quote(commit.oid, safe='')}{place}"


def load_artifacts(path: str | os.PathLike[str], device: str = "cpu") -> BaseEstimator:
    """Load a fitted estimator from files that :func:`save_artifacts` wrote.

    Loading untrusted files cannot run code. The JSON is checked against a strict
    schema, the tensors are checked against the shapes in the JSON, and both against a
    checksum. The ``.pt`` and ``.json`` files of pingkit can be loaded too, if they
    contain only the tensors of its MLP or CNN.

    Parameters
    ----------
    path : str or Path
        Path of both files, with or without a suffix. Or the address of files on the
        Hugging Face hub: ``"hf://owner/name"``, ``"hf://owner/name@revision"``, or, for
        files with a name other than ``probe``, ``"hf://owner/name/other"``. Only these
        two files of the repository are downloaded. They are kept in the hub's cache.
    device : str, default="cpu"
        The ``device`` parameter of the estimator, such as ``"auto"`` or ``"cuda"``.

    Returns
    -------
    BaseEstimator
        The fitted estimator. It predicts the same probabilities as the saved one, but
        has no ``history_``. Hyperparameters that were arrays or tuples are now lists.

    Raises
    ------
    FileNotFoundError
        If one of the files does not exist, or cannot be downloaded.
    ValueError
        If a file has another format, is incomplete or has changed; if it contains a
        value that is not allowed; or if ``device`` is not a device of torch.

    See Also
    --------
    save_artifacts : Writes the files.
    push_to_hub : Uploads them.

    Examples
    --------
    >>> from plug_sklearn import load_artifacts
    >>> pipe = load_artifacts("artifacts/probe", device="auto")  # doctest: +SKIP
    >>> pipe.predict_proba(["Paris is in France."])  # doctest: +SKIP
    """
    check_device(device, "load_artifacts")
    if isinstance(path, str) and path.startswith(SCHEME):
        path = download(path)
    description = name_file(path, ".json")
    candidates = [name_file(path, suffix) for suffix in WEIGHT_SUFFIXES]
    weights = next((file for file in candidates if file.is_file()), None)
    if weights is None or not description.is_file():
        missing = [file.name for file in candidates] if weights is None else []
        listed = " or ".join(missing or [description.name])
        if weights is None and not description.is_file():
            refuse_other_file(Path(path))
        raise FileNotFoundError(f"There is no {listed} in {description.parent}.")
    with naming(description):
        found = read_json(description)
        if weights.suffix != ".safetensors":
            return load_pingkit(found, weights, device)
        artifact = _validate(found)
        expected = artifact.estimator.expect_tensors()
    with naming(weights):
        data = weights.read_bytes()
        tensors = read_tensors(data, expected)
    with naming(description):
        estimator = artifact.estimator.restore(tensors, device)
        # The checksum comes last, because errors about single values are more helpful.
        if _digest(data, found["estimator"]) != artifact.sha256:
            raise ValueError(
                f"it or {weights.name} is not what was saved: their checksum differs"
            )
    return estimator


def _validate(found: dict[str, Any]) -> Artifact:
    """Check the whole JSON."""
    number = found.get("format")
    if type(number) is not int or number != FORMAT:
        raise ValueError(
            f"it has format {number!r}, and this release of plug_sklearn reads format "
            f"{FORMAT}"
        )
    try:
        return Artifact.model_validate(found)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValidationError as error:
        raise ValueError(explain_validation(error)) from None


def _digest(tensors: bytes, values: object) -> str:
    """Compute the checksum of the tensors and of the table of the estimator."""
    text = json.dumps(values, sort_keys=True)
    return sha256(tensors + text.encode()).hexdigest()
