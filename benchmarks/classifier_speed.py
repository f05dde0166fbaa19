"""Compare the speed of the classifiers with torch, skorch and pingkit, as JSON.

``python classifier_speed.py PEERS`` is run by ``bench_classifiers.py``. PEERS is the
Python of an environment that holds pingkit, or nothing.
"""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring
from skorch.dataset import ValidSplit
from torch.nn import functional as F

from plug_sklearn import PlugMLPClassifier
from plug_sklearn.classifiers._networks import MLPNetwork, initialise_parameters

N_ROWS, N_FEATURES, N_EPOCHS, BATCH_SIZE = 1270, 576, 30, 64
N_REPEATS = 3
N_PREDICTED = 100_000
N_LARGE_ROWS, N_LARGE_FEATURES = 20_000, 4096
WIDTHS = {"first": 16, "second": 16, "last": 16, "dropout": 0.3}
#: pingkit's network, trained as plainly as the others can.
PLAIN = {"n_members": 1, "linear_path": False, "input_dropout": 0.0}

Samples = NDArray[np.float32]
Labels = NDArray[np.intp]


def make_rows() -> tuple[Samples, Labels]:
    """Draw rows whose first feature tells the class, with noise."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(N_ROWS, N_FEATURES)).astype(np.float32)
    return X, (X[:, 0] + generator.normal(size=N_ROWS) > 0).astype(np.intp)


def fit_ours(X: Samples, y: Labels, **parameters: object) -> PlugMLPClassifier:
    """Train for all epochs, scoring a fifth of the rows after each."""
    probe = PlugMLPClassifier(
        max_epochs=N_EPOCHS,
        patience=N_EPOCHS,
        batch_size=BATCH_SIZE,
        random_state=0,
        device="cpu",
        **parameters,
    )
    return probe.fit(X, y)


def fit_by_hand(X: Samples, y: Labels, n_members: int, linear_path: bool) -> MLPNetwork:
    """Train the same networks for the same epochs in a loop of torch's own calls."""
    generator = torch.Generator().manual_seed(0)
    network = MLPNetwork(
        N_FEATURES,
        2,
        n_members=n_members,
        linear_path=linear_path,
        input_dropout=0.2 if linear_path else 0.0,
        **WIDTHS,
    )
    initialise_parameters(network, generator)
    rows, codes = torch.tensor(X), torch.tensor(y)
    network.standardise.learn(rows, torch.ones(len(rows)))
    folds = torch.randperm(len(rows), generator=generator).chunk(5)[:n_members]
    held_out = torch.stack(folds, dim=1)
    trained = torch.stack(
        [torch.tensor(np.setdiff1d(np.arange(len(rows)), fold)) for fold in folds],
        dim=1,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, fused=True)
    best_score, best = -1.0, network.state_dict()
    for _ in range(N_EPOCHS):
        network.train()
        order = torch.rand(trained.shape, generator=generator).argsort(dim=0)
        running = 0.0
        for taken in trained.gather(0, order).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss = F.cross_entropy(
                network(rows[taken]).reshape(-1, 2), codes[taken].reshape(-1)
            )
            loss.backward()
            optimizer.step()
            running += loss.item()
        network.eval()
        with torch.no_grad():
            logits = network(rows[held_out]).reshape(-1, 2)
            F.cross_entropy(logits, codes[held_out].reshape(-1)).item()
        score = roc_auc_score(codes[held_out].reshape(-1), logits.softmax(1)[:, 1])
        if score > best_score:
            best_score = score
            best = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best)
    return network


def fit_with_skorch(X: Samples, y: Labels) -> NeuralNetClassifier:
    """Train pingkit's network with skorch as it comes."""
    net = NeuralNetClassifier(
        MLPNetwork,
        module__n_features=N_FEATURES,
        module__n_classes=2,
        **{f"module__{name}": value for name, value in WIDTHS.items()},
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        max_epochs=N_EPOCHS,
        batch_size=BATCH_SIZE,
        train_split=ValidSplit(5, stratified=True),
        callbacks=[EpochScoring("roc_auc", lower_is_better=False)],
        verbose=0,
    )
    net.initialize()
    initialise_parameters(net.module_, torch.Generator())
    return net.partial_fit(X, y)


def take_seconds(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time each task in turn, several times over, after a first time; the medians."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(N_REPEATS):
        for name, task in tasks.items():
            start = perf_counter()
            task()
            seconds[name].append(perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def time_prediction(probe: PlugMLPClassifier) -> dict[str, float]:
    """Time 100,000 rows through the estimator, and through its bare module."""
    generator = np.random.default_rng(1)
    X = generator.random((N_PREDICTED, N_FEATURES), dtype=np.float32)
    module = probe.net_.module_

    def predict_bare(batch_size: int) -> Samples:
        with torch.inference_mode():
            parts = torch.from_numpy(X).split(batch_size)
            joined = torch.cat([module(part).softmax(1) for part in parts])
        result: Samples = joined.numpy()
        return result

    difference = np.abs(predict_bare(1024) - probe.predict_proba(X)).max()
    if difference > 1e-5:
        raise AssertionError(f"predictions differ by {difference}")
    return take_seconds(
        {
            "predict": lambda: probe.predict_proba(X),
            "bare module, at once": partial(predict_bare, N_PREDICTED),
            "bare module, in batches": partial(predict_bare, 1024),
        }
    )


def time_imports() -> dict[str, float]:
    """Time the import of scikit-learn alone and with ours, in fresh processes."""
    statements = {
        "import sklearn": "import sklearn.base",
        "import plug_sklearn": "import sklearn.base, plug_sklearn",
    }
    return take_seconds(
        {
            name: partial(subprocess.run, [sys.executable, "-c", code], check=True)
            for name, code in statements.items()
        }
    )


def time_pingkit(python: str) -> float:
    """Time pingkit's training in its own environment."""
    command = [python, str(Path(__file__).with_name("peers_classifiers.py")), "speed"]
    rows = {"n_rows": N_ROWS, "n_features": N_FEATURES}
    settings = rows | {"n_epochs": N_EPOCHS, "batch_size": BATCH_SIZE}
    answer = subprocess.run(
        [*command, json.dumps(settings)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return float(json.loads(answer.stdout.splitlines()[-1]))


def find_peak() -> int:
    """Find the most memory that this process has had, in bytes; on Linux.

    What ``resource`` gives is the parent's, where that had more.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure_memory() -> dict[str, int]:
    """Measure what a fit to large data adds to the memory; in a fresh process."""
    fit_ours(*make_rows())
    generator = np.random.default_rng(0)
    shape = N_LARGE_ROWS, N_LARGE_FEATURES
    X = generator.standard_normal(shape, dtype=np.float32)
    before = find_peak()
    probe = PlugMLPClassifier(max_epochs=2, random_state=0, device="cpu")
    probe.fit(X, X[:, 0] > 0)
    state = probe.net_.module_.state_dict()
    return {
        "data": X.nbytes,
        "network": sum(value.nbytes for value in state.values()),
        "added by fit": find_peak() - before,
    }


def ask_for_memory() -> dict[str, int]:
    """Have a fresh process measure memory."""
    command = [sys.executable, __file__, "memory"]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, int] = json.loads(answer.stdout)
    return measured


def main(peers: str) -> None:
    """Time all, and print what was found."""
    X, y = make_rows()
    seconds = take_seconds(
        {
            "plain, ours": lambda: fit_ours(X, y, **PLAIN),
            "plain, by hand": lambda: fit_by_hand(X, y, 1, linear_path=False),
            "plain, skorch": lambda: fit_with_skorch(X, y),
            "default, ours": lambda: fit_ours(X, y),
            "default, by hand": lambda: fit_by_hand(X, y, 5, linear_path=True),
        }
    )
    if peers:
        seconds["plain, pingkit"] = time_pingkit(peers)
    probe = fit_ours(X, y)
    seconds |= time_prediction(probe) | time_imports()
    state = probe.net_.module_.state_dict()
    sizes = {
        "pickle": len(pickle.dumps(probe)),
        "weights": sum(value.nbytes for value in state.values()),
    }
    memory = ask_for_memory()
    print(json.dumps({"seconds": seconds, "bytes": sizes, "memory": memory}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    if asked == "memory":
        print(json.dumps(measure_memory()))
    else:
        main(asked)
