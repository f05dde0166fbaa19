"""A network in double precision, beside the one that others read."""

import threading
from copy import deepcopy
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import nn

_of_thread = threading.local()


def copy_in_double(module: nn.Module) -> nn.Module:
    """Copy a network in double precision, with the weights that it has now.

    Copying its structure takes longer than a few samples do: each thread keeps that,
    for as long as the network is there, and copies the weights alone.

    Parameters
    ----------
    module : nn.Module
        A trained network; stays as it is.

    Returns
    -------
    nn.Module
        In evaluation mode; this thread's until it asks for the next one.
    """
    copies: WeakKeyDictionary[nn.Module, nn.Module] = vars(_of_thread).setdefault(
        "copies", WeakKeyDictionary()
    )
    if module not in copies:
        copies[module] = deepcopy(module).double().eval()
    copy = copies[module]
    with torch.no_grad():
        for mine, its in zip(_list_tensors(copy), _list_tensors(module), strict=True):
            mine.copy_(its)
    return copy


def _list_tensors(module: nn.Module) -> "chain[torch.Tensor]":
    return chain(module.parameters(), module.buffers())
