import copy

import pytest
import torch
from _toy import build_toy
from torch import nn

from plug_sklearn.embedding.anatomy import restore_state


def replace_module(model: nn.Module) -> None:
    model.steps[0].look = copy.deepcopy(model.steps[0].look)


def write_buffer(model: nn.Module) -> None:
    model.steps[1].counts.add_(1)


def replace_buffer(model: nn.Module) -> None:
    model.steps[1].counts = torch.ones(3)


def set_attribute(model: nn.Module) -> None:
    model.steps[2].mode = "full"


def fill_list(model: nn.Module) -> None:
    model.seen.append(1)


def change_settings(model: nn.Module) -> None:
    model.config.mode = "other"


CHANGES = [
    replace_module,
    write_buffer,
    replace_buffer,
    set_attribute,
    fill_list,
    change_settings,
]


def state_of(model: nn.Module) -> tuple[object, ...]:
    return (
        id(model.steps[0].look),
        model.steps[1].counts.tolist(),
        hasattr(model.steps[2], "mode"),
        list(model.seen),
        model.config.mode,
    )


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_a_pass_changes_is_noticed_and_put_back(change: object) -> None:
    model = build_toy()
    model.steps[1].register_buffer("counts", torch.zeros(3))
    model.seen = []
    before = state_of(model)
    with restore_state(model) as has_changed:
        assert not has_changed()
        change(model)
        assert has_changed()
        assert state_of(model) != before
    assert state_of(model) == before


def test_state_is_put_back_after_an_error_too() -> None:
    model = build_toy()
    with pytest.raises(RuntimeError, match="halfway"), restore_state(model):
        model.config.mode = "other"
        raise RuntimeError("halfway")
    assert model.config.mode == "sound"
