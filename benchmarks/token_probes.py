"""Measure how well probes of tokens find one telling sentence; writes a table.

``python token_probes.py DATA MODEL CACHE`` reads statements that are true or false from
CSV files in DATA, composes texts of 1, 3, 9 and 27 sentences of which one is such a
statement, and keeps their activations in CACHE. It writes ``token_probes.md``, whose
verdicts compare with the goals, and ``token_probes.png``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from composed_texts import compose_texts
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plug_sklearn import HFEmbeddingTransformer, PlugTokenClassifier

#: Layers that are compared for pooled probes; token probes read the one at ``PLACE``.
LAYERS, PLACE = (10, 13, 16, 18, 20, 23), 3
FILES = {"cities": "cities", "companies": "companies_true_false"}
FILES["claims"] = "common_claim_true_false"
LENGTHS, N_TRAIN, N_SEEDS = (1, 3, 9, 27), 500, 2
POOLINGS = ("last", "mean", "max")
PENALTIES = (1e-3, 1e-2, 1e-1)


class Texts(NamedTuple):
    """Tokens (n_tokens, n_layers, hidden_size) of some texts, and their labels."""

    tokens: NDArray[np.float16]
    lengths: NDArray[np.int64]
    y: NDArray[np.int64]

    def split(self, place: int) -> NDArray[np.object_]:
        """Give the tokens of each text in one layer."""
        pieces = np.split(self.tokens[:, place], self.lengths.cumsum()[:-1])
        texts = np.empty(len(pieces), dtype=object)
        for number, piece in enumerate(pieces):
            texts[number] = np.ascontiguousarray(piece)
        return texts

    def pool(self, place: int, pooling: str) -> NDArray[np.float32]:
        """Give one vector a text."""
        pool = {"last": lambda t: t[-1], "mean": lambda t: t.mean(0)}
        pool["max"] = lambda t: t.max(0)
        pieces = [pool[pooling](text.astype(np.float32)) for text in self.split(place)]
        return np.stack(pieces)


def embed(model: str, data: Path, cache: Path, name: str) -> None:
    """Compose the texts of a set, and write their activations."""
    table = pd.read_csv(data / f"{FILES[name]}.csv")
    # What a city is said to be is in several statements.
    groups = table.get("city", table["statement"]).to_numpy()
    rng = np.random.default_rng(0)
    order = rng.permutation(np.unique(groups))
    is_test = np.isin(groups, order[: len(order) * 45 // 100])
    rows = {
        "train": rng.permutation(np.flatnonzero(~is_test))[:N_TRAIN],
        "test": rng.permutation(np.flatnonzero(is_test))[:N_TRAIN],
    }
    embedder = HFEmbeddingTransformer(
        model, layers=LAYERS, pooling=None, activation_dtype="float16"
    )
    for part, n_sentences in list_parts(name):
        chosen = rows[part][: {3: 300, 27: 200}.get(n_sentences)]
        seed = n_sentences + 100 * (part == "test")
        statements = table["statement"].iloc[chosen].tolist()
        states = embedder.fit_transform(compose_texts(statements, n_sentences, seed))
        path = cache / f"{name}_{part}_{n_sentences}"
        np.save(f"{path}.npy", np.concatenate([text[:, :, 0] for text in states]))
        lengths = [len(text) for text in states]
        np.savez(f"{path}_meta.npz", y=table["label"].to_numpy()[chosen], lens=lengths)


def list_parts(name: str) -> list[tuple[str, int]]:
    """List the parts of a set, and their numbers of sentences."""
    tests = LENGTHS if name == "cities" else (1, 9)
    return [("train", 1), ("train", 9), *(("test", length) for length in tests)]


def load(cache: Path, name: str, part: str, n_sentences: int) -> Texts:
    """Read what ``embed`` wrote."""
    path = cache / f"{name}_{part}_{n_sentences}"
    with np.load(f"{path}_meta.npz") as meta:
        return Texts(np.load(f"{path}.npy", mmap_mode="r"), meta["lens"], meta["y"])


def score_pooled(
    cache: Path, name: str, trained: int, pooling: str
) -> Iterator[dict[str, Any]]:
    """Score logistic regression, at the layer and penalty that are best on the test."""
    train = load(cache, name, "train", trained)
    tests = {
        tested: load(cache, name, part, tested)
        for part, tested in list_parts(name)
        if part == "test"
    }
    scores: dict[int, list[tuple[float, float]]] = {tested: [] for tested in tests}
    for place in range(len(LAYERS)):
        pooled = train.pool(place, pooling)
        vectors = {tested: test.pool(place, pooling) for tested, test in tests.items()}
        for penalty in PENALTIES:
            logistic = LogisticRegression(C=penalty, max_iter=300)
            probe = make_pipeline(StandardScaler(), logistic).fit(pooled, train.y)
            for tested, test in tests.items():
                found = probe.predict_proba(vectors[tested])[:, 1]
                area = roc_auc_score(test.y, found)
                scores[tested].append((area, log_loss(test.y, found)))
    for tested, found in scores.items():
        area, loss = max(found)
        yield {"tested": tested, "auc": area, "loss": loss}


def score_tokens_of(
    cache: Path,
    name: str,
    trained: int,
    n_seeds: int,
    n_texts: int | None = None,
    **parameters: object,
) -> Iterator[dict[str, Any]]:
    """Score a probe of tokens, averaged over seeds.

    It is trained on the first ``n_texts`` texts, which are in random order.
    """
    train = load(cache, name, "train", trained)
    X, y = train.split(PLACE)[:n_texts], train.y[:n_texts]
    probes = [
        PlugTokenClassifier(random_state=seed, device="cpu", **parameters).fit(X, y)
        for seed in range(n_seeds)
    ]
    for part, tested in list_parts(name):
        if part == "test":
            test = load(cache, name, part, tested)
            X = test.split(PLACE)
            found = [probe.predict_proba(X)[:, 1] for probe in probes]
            yield {
                "tested": tested,
                "auc": np.mean([roc_auc_score(test.y, p) for p in found]),
                "loss": np.mean([log_loss(test.y, p) for p in found]),
            }


def measure(cache: Path) -> pd.DataFrame:
    """Score all probes on all sets."""
    rows = []
    settings: list[tuple[str, dict[str, Any], int]] = [
        ("attention", {}, N_SEEDS),
        ("attention, no linear path", {"linear_path": False}, N_SEEDS),
        ("rolling", {"aggregation": "rolling", "linear_path": False}, N_SEEDS),
        ("max", {"aggregation": "max", "linear_path": False}, 1),
        ("softmax", {"aggregation": "softmax", "linear_path": False}, 1),
    ]
    for name in FILES:
        for trained in (1, 9):
            about = {"set": name, "trained": trained}
            for pooling in POOLINGS:
                for found in score_pooled(cache, name, trained, pooling):
                    rows.append({**about, "probe": f"{pooling}, pooled", **found})
            shown = settings if name == "cities" else settings[:3]
            for label, parameters, n_seeds in shown:
                for found in score_tokens_of(
                    cache, name, trained, n_seeds, **parameters
                ):
                    rows.append({**about, "probe": label, **found})
                print(about, label, rows[-1], flush=True)
    return pd.DataFrame(rows)


def judge(table: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """Give for each goal what it is, what was found, and whether it is met."""
    index = ["set", "trained", "tested", "probe"]
    areas = table.set_index(index)["auc"].sort_index()
    for name in FILES:
        nine = areas[name, 9, 9]
        best = max(nine[f"{pooling}, pooled"] for pooling in POOLINGS)
        found = nine["attention"]
        yield (
            f"{name}: one telling sentence in nine, 500 texts",
            "ROC-AUC ≥ 0.82, and ≥ 0.18 above the best pooled probe",
            f"{found:.3f}, pooled {best:.3f}",
            judge_by(found >= 0.82 and found >= best + 0.18),
        )
        found = areas[name, 1, 9]["rolling"]
        yield (
            f"{name}: trained on one sentence, tested on nine",
            "ROC-AUC ≥ 0.80 with aggregation='rolling'",
            f"{found:.3f}",
            judge_by(found >= 0.80),
        )
        one = areas[name, 1, 1]
        best = max(one["last, pooled"], one["mean, pooled"])
        yield (
            f"{name}: single sentences",
            "ROC-AUC at most 0.005 below the better of last and mean",
            f"{one['attention']:.3f}, pooled {best:.3f}",
            judge_by(one["attention"] >= best - 0.005),
        )


def judge_by(is_met: bool) -> str:
    """Say whether a goal is met."""
    return "met" if is_met else "MISSED"


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw ROC-AUC against the number of sentences."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    cities = table[table["set"] == "cities"]
    shown = ["last, pooled", "mean, pooled", "attention", "rolling", "max"]
    for axis, trained in zip(axes, (9, 1), strict=True):
        for probe, marker in zip(shown, "osD^v", strict=True):
            own = cities[(cities["trained"] == trained) & (cities["probe"] == probe)]
            axis.plot(own["tested"], own["auc"], marker=marker, label=probe)
        axis.set_xscale("log", base=3)
        axis.set_xticks(LENGTHS, LENGTHS)
        plural = "s" if trained > 1 else ""
        axis.set_title(f"trained on {trained} sentence{plural}")
        axis.set_xlabel("sentences in a text, of which one tells")
        axis.axhline(0.5, color="0.8", zorder=0)
    axes[0].set_ylabel("ROC-AUC")
    axes[0].legend(loc="lower left", fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main(data: Path, model: str, cache: Path) -> None:
    """Embed what the cache lacks, measure, and write the table and the picture."""
    cache.mkdir(exist_ok=True)
    for name in FILES:
        if not (cache / f"{name}_test_9_meta.npz").exists():
            embed(model, data, cache, name)
    table, here = measure(cache), Path(__file__).parent
    verdicts = pd.DataFrame(judge(table), columns=["what", "goal", "found", "verdict"])
    wide = table.pivot_table("auc", ["set", "trained", "probe"], "tested").round(3)
    losses = table.pivot_table("loss", ["set", "trained", "probe"], "tested").round(3)
    lines = ["# Probes of tokens: one telling sentence among others", ""]
    lines += [verdicts.to_markdown(index=False), ""]
    for title, shown in (("ROC-AUC", wide), ("Log loss", losses)):
        lines += [f"{title}, against the number of sentences in a text:", ""]
        lines += [
            shown.astype(object).fillna("").reset_index().to_markdown(index=False),
            "",
        ]
    (here / "token_probes.md").write_text("\n".join(lines))
    draw(table, here / "token_probes.png")
    print(verdicts.to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
