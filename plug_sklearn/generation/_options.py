"""Options of the model's own ``generate``: check them, and draw its random numbers."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from plug_sklearn._forks import make_lock

#: Torch's global generators belong to one thread while a token is drawn.
_DRAWING = make_lock()

_GIVEN = "which is made from 'prompts'"
_RETURNED = "which is not returned"
#: Options that are always refused, and why.
_REFUSED: Mapping[str, str] = {
    "max_new_tokens": "which is a separate parameter",
    "max_length": "because 'max_new_tokens' limits the answer",
    "inputs": _GIVEN,
    "input_ids": _GIVEN,
    "inputs_embeds": _GIVEN,
    "attention_mask": _GIVEN,
    "position_ids": _GIVEN,
    "past_key_values": _GIVEN,
    "cache": _GIVEN,
    "streamer": "because stream_with_probes yields the tokens",
    "return_dict_in_generate": _RETURNED,
    "output_attentions": _RETURNED,
    "output_hidden_states": _RETURNED,
    "output_scores": _RETURNED,
    "output_logits": _RETURNED,
    "assistant_model": "which drafts tokens that may be rejected",
    "custom_generate": "which runs the probes",
    "synced_gpus": "which runs the model without a new token",
    "negative_prompt_ids": "which runs the model on other tokens",
}


#: Options of ``generate`` that are not settings of a ``GenerationConfig``.
_NO_SETTINGS = {"logits_processor", "prefix_allowed_tokens_fn", "stopping_criteria"}


def _is_plain(value: object) -> bool:
    return value is None or value is False


#: Settings that may only have a value without effect, and why.
_CHECKED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "num_beams": (
        lambda n: n in (None, 1),
        "1: a beam search may replace tokens that the probes have read",
    ),
    "num_return_sequences": (
        lambda n: n in (None, 1),
        "1: repeat a prompt in 'prompts' to get several answers",
    ),
    "use_cache": (
        lambda use: use is not False,
        "True: without a cache, each new token runs all tokens again",
    ),
    "cache_implementation": (
        lambda name: name in (None, "dynamic", "hybrid"),
        "None: other caches give states that differ from those of a text",
    ),
    "prompt_lookup_num_tokens": (_is_plain, "None: drafted tokens may be rejected"),
    "prefill_chunk_size": (_is_plain, "None: prompts are read in one piece"),
    "guidance_scale": (
        lambda scale: scale in (None, 1, 1.0),
        "None: guidance runs the model on other tokens",
    ),
    "penalty_alpha": (_is_plain, "None: contrastive search tries several tokens"),
    "dola_layers": (_is_plain, "None: it has its own decoding loop"),
    "token_healing": (_is_plain, "False: it changes the prompt"),
    "constraints": (_is_plain, "None: constraints need beams"),
    "force_words_ids": (_is_plain, "None: forced words need beams"),
}


def check_options(options: Any, owner: str) -> dict[str, Any]:  # noqa: ANN401 - validated here
    """Check ``generation_kwargs`` by themselves, before a model is loaded."""
    given = _read_mapping(options, owner)
    for name, why in _REFUSED.items():
        if given.get(name) is not None:
            raise ValueError(
                f"The 'generation_kwargs' parameter of {owner} must not hold "
                f"{name!r}, {why}. Got {given[name]!r}."
            )
    config = given.get("generation_config")
    if config is not None and not isinstance(config, GenerationConfig):
        raise TypeError(
            f"The 'generation_kwargs' parameter of {owner} must hold a "
            f"GenerationConfig as 'generation_config'. Got {config!r} instead."
        )
    for name in ("logits_processor", "stopping_criteria"):
        found = given.get(name)
        if found is not None and not isinstance(found, list):
            raise TypeError(
                f"The option {name!r} in the 'generation_kwargs' parameter of {owner} "
                f"must be a list. Got {found!r} instead."
            )
    strings = given.get("stop_strings") or []
    if not isinstance(strings, str) and not (
        isinstance(strings, list) and all(isinstance(one, str) for one in strings)
    ):
        raise TypeError(
            "The option 'stop_strings' in the 'generation_kwargs' parameter of "
            f"{owner} must be a string or a list of strings. Got {strings!r} instead."
        )
    _check_settings(vars(config) if config is not None else {}, owner)
    _check_settings(given, owner)
    return given


def join_options(
    given: Mapping[str, Any], causal: PreTrainedModel, owner: str
) -> tuple[GenerationConfig, dict[str, Any]]:
    """Combine checked options with the model's own settings.

    Returns all settings, and the options that are not settings, such as a
    ``logits_processor``.
    """
    others = dict(given)
    settings = deepcopy(others.pop("generation_config", None))
    if settings is None:
        settings = GenerationConfig()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    assert causal.generation_config is not None
    for name, value in causal.generation_config.to_dict().items():
        if getattr(settings, name, None) is None:
            setattr(settings, name, value)
    # The settings of some models turn the cache off.
    settings.use_cache = True
    others = settings.update(**others)
    _check_settings(vars(settings), owner)
    known = _NO_SETTINGS | signature(causal.forward).parameters.keys()
    for name in others.keys() - known:
        raise ValueError(
            f"The 'generation_kwargs' parameter of {owner} must hold options of the "
            f"model's generate method. Got {name!r} instead."
        )
    # Only max_new_tokens limits the length, whatever the model's own settings say.
    settings.max_length = None
    settings.return_dict_in_generate = False
    return settings, others


def _check_settings(settings: Mapping[str, Any], owner: str) -> None:
    for name, (is_allowed, must) in _CHECKED.items():
        if name in settings and not is_allowed(settings[name]):
            raise ValueError(
                f"The option {name!r} in the 'generation_kwargs' parameter of {owner} "
                f"must be {must}. Got {settings[name]!r} instead."
            )


def _read_mapping(options: object, owner: str) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(
        isinstance(name, str) for name in options
    ):
        raise TypeError(
            f"The 'generation_kwargs' parameter of {owner} must be None or a dict of "
            f"options of the model's generate method. Got {options!r} instead."
        )
    return dict(options)


@dataclass(eq=False)
class Randomness:
    """Random numbers for sampling, drawn from a seed.

    ``generate`` draws from torch's global generators. Their states are replaced while a
    token is drawn, and restored after it. If ``seed`` is None, nothing is replaced.
    ``device`` is where tokens are drawn. Of several threads that generate, one draws at
    a time: all share these generators.
    """

    seed: int | None
    device: torch.device
    _own: list[Tensor] | None = None
    _before: list[Tensor] | None = None
    _is_drawing: bool = False

    def enter(self) -> None:
        """Replace the states of torch's generators by those of the seed."""
        if self._is_drawing:
            return
        _DRAWING.acquire()
        self._is_drawing = True
        if self.seed is None:
            return
        self._before = self._get()
        if self._own is not None:
            self._set(self._own)
            return
        torch.default_generator.manual_seed(self.seed)
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                torch.cuda.manual_seed(self.seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(self.seed)

    def leave(self) -> None:
        """Restore the states of torch's generators."""
        if not self._is_drawing:
            return
        try:
            if self._before is not None:
                self._own = self._get()
                self._set(self._before)
                self._before = None
        finally:
            self._is_drawing = False
            _DRAWING.release()

    def _get(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        elif self.device.type == "mps":
            states.append(torch.mps.get_rng_state())
        return states

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(states[1])
