from pathlib import Path

import pytest
import transformers
from transformers.utils import logging

from plug_sklearn.embedding.models._bars import hide_loading_bars


def test_transformers_bars_are_hidden_and_come_back(
    llama: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with hide_loading_bars():
        transformers.AutoModel.from_pretrained(Path(llama))
    assert capfd.readouterr().err == ""
    transformers.AutoModel.from_pretrained(Path(llama))
    assert "Loading weights" in capfd.readouterr().err


def test_a_hook_of_the_user_comes_back() -> None:
    def hook(make, args, kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - a stand-in
        return make(*args, **kwargs)

    before = logging.set_tqdm_hook(hook)
    try:
        with hide_loading_bars():
            pass
        assert logging.set_tqdm_hook(before) is hook
    finally:
        logging.set_tqdm_hook(before)
