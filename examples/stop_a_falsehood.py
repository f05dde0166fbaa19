"""Stop false statements: a probe reads every token while the model writes.

The probe learns what false statements do to the model's states. The beginning of a
false statement is not false yet, so the probe is trained on beginnings too. Then the
model completes statements about countries that the probe was not trained on, and is
stopped when the probe finds that a statement is probably false.

Run ``python examples/stop_a_falsehood.py``.
"""

from pathlib import Path

import pandas as pd
from setting import load_statements, make_embedder, make_linear_probe, run
from sklearn.pipeline import make_pipeline

from plug_sklearn import GenerationDisplay, LayerAggregator, generate_with_probes

#: Number of pairs of facts that are kept for the statements that the model completes.
N_HELD_OUT = 6
STOP = {"false": 0.8}
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 0}


def list_beginnings(statements: pd.Series) -> list[str]:
    """List beginnings of statements that are neither true nor false yet."""
    words = [statement.rstrip(".").split() for statement in statements]
    found = {" ".join(each[:n]) for each in words for n in range(2, len(each))}
    return sorted(found - set(statements.str.rstrip(".")))


def main(out: Path, model: str | None = None, n_pairs: int | None = None) -> None:
    """Fit the probe, let the model write, and draw an answer that was stopped."""
    statements = load_statements(n_pairs)
    is_country = statements["relation"].isin(
        ["capital", "language", "currency", "continent"]
    )
    known = statements[is_country & (statements["group"] >= N_HELD_OUT)]
    beginnings = list_beginnings(known["statement"])
    texts = [*known["statement"], *known["statement"].str.rstrip("."), *beginnings]
    is_false = [*(1 - known["label"]), *(1 - known["label"]), *[0] * len(beginnings)]

    embedder = make_embedder(out, model).fit(texts)
    embedder.set_params(layers=[embedder.n_model_layers_ * 3 // 5])
    classifier = make_linear_probe()
    classifier[-1].set_params(class_weight="balanced")
    probe = make_pipeline(embedder, LayerAggregator(), classifier)
    probe.fit(texts, is_false)

    asked = statements.query("relation == 'capital' and label == 1")
    asked = asked[asked["statement"].str.startswith("The") & (asked.group < N_HELD_OUT)]
    prompts = [text.rsplit(" ", 1)[0] for text in asked["statement"]]
    answers = generate_with_probes(
        prompts,
        {"false": probe},
        max_new_tokens=16,
        stop=STOP,
        generation_kwargs=SAMPLING,
        random_state=0,
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        said = " ".join(f"{prompt}{answer.text}".split())
        print(f"{'stopped' if answer.stopped_by == 'false' else '':8}{said}")
    stopped = [answer for answer in answers if answer.stopped_by == "false"]
    shown = max(stopped or answers, key=lambda answer: len(answer.tokens))
    display = GenerationDisplay(shown, stop=STOP).plot()
    display.ax_.set_title(f"{prompts[answers.index(shown)]} …", loc="left")
    display.ax_.set_ylabel("Probability that it is false")
    display.figure_.savefig(out / "stop_a_falsehood.png")


if __name__ == "__main__":
    run(main, __doc__)
