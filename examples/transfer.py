"""Train a probe on one table of facts, and test it on each of the others.

Each table has a version in which all facts are denied. A probe that reads truth would
have high scores on all of them. Run ``python examples/transfer.py``.
"""

from pathlib import Path

import pandas as pd
from facts import make_statements
from setting import make_embedder, make_folds, make_linear_probe, run
from sklearn.pipeline import make_pipeline

from plug_sklearn import LayerAggregator, TransferDisplay

#: The first relation of each table.
TABLES = {
    "countries": "capital",
    "elements": "symbol",
    "animals": "class",
    "books": "author",
}


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Train on each table, test on each, and draw the scores."""
    tables = {
        name + ending: rows
        for ending, negated in (("", False), (", denied", True))
        for name, rows in split_tables(n_pairs, negated=negated).items()
    }
    embedder = make_embedder(out, model)
    # Truth can be read best two thirds of the way up.
    n_layers = embedder.fit(tables["books"]["statement"]).n_model_layers_
    embedder.set_params(layers=[2 * n_layers // 3])
    display = TransferDisplay.from_estimator(
        make_pipeline(embedder, LayerAggregator(), make_linear_probe()),
        {name: (rows["statement"], rows["label"]) for name, rows in tables.items()},
        groups={name: rows["group"] for name, rows in tables.items()},
        cv=make_folds(4),
        scoring="roc_auc",
    )
    print(display.matrix.round(2).to_string())
    affirmed, denied = list(TABLES), [f"{name}, denied" for name in TABLES]
    for title, tested_on in (("stated", affirmed), ("denied", denied)):
        mean = display.matrix.loc[affirmed, tested_on].to_numpy().mean()
        print(f"Trained on tables as stated, tested on tables as {title}: {mean:.2f}.")
    print("Chance is 0.5. Below it, the probe takes true statements for false ones.")

    display.ax_.set(title="Does a probe for truth hold on other facts?")
    display.figure_.savefig(out / "transfer.png")


def split_tables(n_pairs: int | None, *, negated: bool) -> dict[str, pd.DataFrame]:
    """Make the statements of each table.

    ``n_pairs`` is the number of pairs of facts to use of each; None: all.
    """
    statements = make_statements(negated=negated)
    tables = {}
    for name, relation in TABLES.items():
        of_table = statements[statements["relation"] == relation]
        groups = of_table["group"].unique()[:n_pairs]
        tables[name] = statements[statements["group"].isin(groups)]
    return tables


if __name__ == "__main__":
    run(main, __doc__)
