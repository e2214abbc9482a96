"""An exercise's check says what is missing to any answer, however odd, and never fails itself."""

import inspect

import numpy as np
import pytest
import torch

from ptv2lib import checks

CHECKS = [
    check
    for name, check in inspect.getmembers(checks, inspect.isfunction)
    if not name.startswith("_") and check.__module__ == checks.__name__
]
ODD = [
    None,
    3,
    "text",
    [["a"]],
    [[1, 2], [3]],
    {"a": []},
    np.arange(4),
    torch.zeros(2, 3),
    (np.arange(3), np.arange(3)),
    [[]],
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_answer_is_not_yet_right(check, odd, capsys):
    more = [None] if "tokenizer" in inspect.signature(check).parameters else []
    assert check(lambda *_: odd, *more) is False
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and said.count("\n") == 1
