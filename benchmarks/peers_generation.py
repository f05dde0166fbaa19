"""Time pingkit's ``generate_with_probes`` beside ``generate``, in its environment.

``bench_generation.py`` runs it: ``python peers_generation.py FOLDER LAYER TOKENS
REPEATS PROMPT...``. It prints the ratios of processor time, one a line.
"""

import sys
from time import process_time

import torch
import transformers
from pingkit.generate import ProbeSpec, generate_with_probes
from pingkit.model import pingClassifier


def main(folder: str, layer: str, n_tokens: str, n_repeats: str, *prompts: str) -> None:
    """Time both alternately, one prompt after another."""
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    probe = pingClassifier(model.config.hidden_size, n_examples=64).eval()
    meta = {"parts": ("rs",), "layers": (int(layer),)}
    options = {"max_new_tokens": int(n_tokens), "do_sample": False}

    def probe_prompts() -> None:
        for prompt in prompts:
            generate_with_probes(
                prompt,
                probes=[ProbeSpec("probe", model=probe, meta=meta)],
                evaluate_on="stream",
                model=model,
                tokenizer=tokenizer,
                filter_non_text=False,
                generation_kwargs={**options, "eos_token_id": None},
            )

    def write() -> None:
        for prompt in prompts:
            encoded = tokenizer(prompt, return_tensors="pt")
            model.generate(**encoded, **options, min_new_tokens=int(n_tokens))

    for _ in range(int(n_repeats)):
        times = []
        for run in (probe_prompts, write):
            start = process_time()
            run()
            times.append(process_time() - start)
        print(times[0] / times[1], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
