"""Model cards, and artifacts on the Hugging Face hub: names and downloads."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
from huggingface_hub import ModelCardData, hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from sklearn.pipeline import Pipeline

import plug_sklearn
from plug_sklearn._hub_access import is_hub_reachable
from plug_sklearn._packages import list_versions
from plug_sklearn.embedding.models import find_registered
from plug_sklearn.evaluation import CrossValidationReport

CARD = "README.md"
#: What model cards have and other pages lack.
_LIBRARY = "library_name: plug_sklearn"
#: Pattern of the name of a repository on the hub.
REPOSITORY = r"[\w.-]+/[\w.-]+"
SCHEME = "hf://"
#: Default name of the files, without suffixes.
NAME = "probe"
_ADDRESS = re.compile(
    rf"hf://(?P<repository>{REPOSITORY})(@(?P<revision>[^/@]+))?(/(?P<name>.+))?"
)
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def check_card(card: Any, owner: str) -> None:  # noqa: ANN401 - anything else is refused
    """Raise an error unless ``card`` is a report or None."""
    if card is not None and not isinstance(card, CrossValidationReport):
        raise TypeError(
            f"The 'card' parameter of {owner} must be None or what "
            f"cross_validation_report returns. Got {type(card).__name__} instead."
        )


def require_own_card(path: Path) -> None:
    """Raise a FileExistsError if a page that is no card of this package is there."""
    if path.exists() and _LIBRARY not in path.read_text("utf-8", errors="replace"):
        raise FileExistsError(
            f"The 'card' of save_artifacts is written to {path}, which is another page "
            "already. Save into a folder of its own."
        )


def write_card(
    estimator: Any,  # noqa: ANN401 - of any kind
    report: CrossValidationReport | None,
    source: str,
) -> str:
    """Write the model card of a fitted estimator, in the hub's format.

    ``source`` is the path or address to give to :func:`load_artifacts`.
    """
    embedder = _find_embedder(estimator)
    data = ModelCardData(
        base_model=None if embedder is None else _name_base_model(embedder),
        library_name="plug_sklearn",
        pipeline_tag=None if embedder is None else "text-classification",
        tags=["plug_sklearn", "scikit-learn", "probe"],
    )
    sections = [
        f"---\n{data.to_yaml()}\n---",
        "# A probe of a language model's hidden states",
        _describe_reading(estimator, embedder),
        "## Scores",
        *(
            _describe_report(report)
            if report is not None
            else ["No scores were reported."]
        ),
        _describe_loading(source, embedder is not None),
    ]
    return "\n\n".join(sections) + "\n"


def _find_embedder(estimator: Any) -> Any:  # noqa: ANN401 - an HFEmbeddingTransformer or None
    """Find the embedder at the beginning of a pipeline, which may be nested."""
    if isinstance(estimator, plug_sklearn.HFEmbeddingTransformer):
        return estimator
    if isinstance(estimator, Pipeline):
        return _find_embedder(estimator.steps[0][1])
    for name in ("calibrated_classifiers_", "estimator_", "estimator"):
        held = getattr(estimator, name, None)
        if held is not None:
            return _find_embedder(held[0] if isinstance(held, list) else held)
    return None


def _name_base_model(embedder: Any) -> str | None:  # noqa: ANN401 - as above
    """Return the model's name on the hub, if it comes from there."""
    name = str(embedder.model_name)
    is_elsewhere = Path(name).exists() or find_registered(name) is not None
    return name if not is_elsewhere and re.fullmatch(REPOSITORY, name) else None


def _describe_reading(estimator: Any, embedder: Any) -> str:  # noqa: ANN401 - as above
    lines = ["## What it reads", ""]
    if embedder is None:
        lines.append("- Activations or features, as they were given to `fit`")
    else:
        name = _name_base_model(embedder) or Path(str(embedder.model_name)).name
        pooling = embedder.pooling
        poolings = [pooling] if isinstance(pooling, str) else pooling
        layers = ", ".join(map(str, embedder.layers_))
        lines += [
            f"- Model: `{name}`",
            f"- Commit: `{embedder.model_revision_ or 'unknown'}`",
            f"- Layers (0 to {embedder.n_model_layers_ - 1}): {layers}",
            f"- Parts: {', '.join(embedder.parts_)}",
            f"- Poolings: {', '.join(poolings) if poolings else 'every token'}",
        ]
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        labels = ", ".join(_quote(str(label)) for label in classes.tolist())
        lines.append(f"- Classes: {labels}")
    shown = repr(estimator)
    fence = _fence(shown, 3)
    return "\n".join([*lines, "", fence, shown, fence])


def _quote(text: str) -> str:
    """Show a text on a line of code, whatever it holds."""
    line = " ".join(text.split())
    fence = _fence(line, 1)
    space = " " if "`" in line else ""
    return f"{fence}{space}{line}{space}{fence}"


def _fence(text: str, least: int) -> str:
    """Return backticks that end no code in a text: more than it holds in a row."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def _describe_report(report: CrossValidationReport) -> list[str]:
    predictions = report.predictions
    groups = ""
    if "group" in predictions:
        groups = f", of {predictions['group'].nunique()} groups,"
    shown = report.overall.rename_axis("score").reset_index()
    sections = [
        f"Cross-validation on {report.n_samples} samples{groups} in "
        f"{len(report.scores)} folds. `pooled` is the score of all folds together.",
        _write_table(shown),
        "\n".join(
            f"- {name.replace('_', ' ').capitalize()}: {value:.3f}"
            for name, value in report.calibration.items()
        ),
    ]
    if report.controls is not None:
        # Scores stand between these columns, and may not be those of the report.
        scores = report.controls.loc[:, "fold":"fit_time"].columns[1:-1].tolist()
        means = report.controls.groupby("control", sort=False)[scores].mean()
        sections += [
            "Mean scores of controls over the same folds. Only the difference between "
            "the probe's score and these shows what the model has learnt.",
            _write_table(means.reset_index()),
        ]
    return sections


def _write_table(table: pd.DataFrame) -> str:
    """Write a table in Markdown."""
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    rows += [
        [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe_loading(source: str, reads_texts: bool) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in list_versions().items())
    samples = '["Paris is in France."]' if reads_texts else "X"
    return f"""## How to load it

```python
from plug_sklearn import load_artifacts

probe = load_artifacts("{source}")
probe.predict({samples})
```

The files contain plain numbers, and loading them runs no code. They do not contain \
the language model. They were saved with {versions}."""


def check_upload(repo_id: str, name: str) -> None:
    """Raise a ValueError unless these name a repository and its files."""
    for parameter, value, pattern in (
        ("repo_id", repo_id, re.compile(REPOSITORY)),
        ("name", name, _NAME),
    ):
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            expected = "'owner/name'" if parameter == "repo_id" else "a file's name"
            raise ValueError(
                f"The {parameter!r} parameter of push_to_hub must be {expected}. Got "
                f"{value!r} instead."
            )


def download(address: str) -> Path:
    """Download the two files of an artifact, and return their path without suffix.

    Both come from the same commit. They are kept in the hub's cache.
    """
    found = _ADDRESS.fullmatch(address)
    places = re.split(r"[/\\]", unquote(found["name"] or NAME)) if found else []
    revision = None
    if found and found["revision"] is not None:
        revision = unquote(found["revision"])
        places += re.split(r"[/\\]", revision)
    # A name that lacks an owner or a repository, or leads upwards, is not valid.
    if found is None or {"", ".", ".."} & set(places):
        raise ValueError(
            "The 'path' parameter of load_artifacts must be 'hf://owner/name', "
            "'hf://owner/name@revision', or one of these followed by "
            f"'/name-of-the-files'. Got {address!r} instead."
        )
    name = re.sub(r"\.(json|safetensors)$", "", found["name"] or NAME)
    description = _fetch(address, found["repository"], f"{name}.json", revision)
    commit = re.search(r"snapshots[/\\]([^/\\]+)[/\\]", str(description))
    pinned = revision if commit is None else commit.group(1)
    _fetch(address, found["repository"], f"{name}.safetensors", pinned)
    return description.with_suffix("")


def _fetch(address: str, repository: str, file: str, revision: str | None) -> Path:
    try:
        return Path(
            hf_hub_download(
                repository,
                file,
                revision=revision,
                library_name="plug_sklearn",
                library_version=list_versions().get("plug_sklearn"),
                local_files_only=not is_hub_reachable(),
            )
        )
    except RemoteEntryNotFoundError as error:
        raise FileNotFoundError(f"There is no {file} in {address!r}.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"The hub has no repository or revision {address!r}, or it is private and "
            "you are not logged in, with 'hf auth login', as a user who may read it."
        ) from error
    except HFValidationError as error:
        raise ValueError(
            f"The 'path' parameter of load_artifacts is not an address: {error}."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"{file} of {address!r} could not be downloaded: the hub cannot be "
            "reached, and the file is not in the cache on this machine."
        ) from error
