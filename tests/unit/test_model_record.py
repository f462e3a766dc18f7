"""Order tokens and records."""

from __future__ import annotations

import pytest

from pipeline.model.record import OrderToken


def test_order_tokens_compare_generation_first_then_offset_then_index() -> None:
    shuffled = [OrderToken(2, 0, 0), OrderToken(1, 1, 0), OrderToken(0, 9, 9), OrderToken(1, 1, 1), OrderToken(1, 0, 5)]
    assert sorted(shuffled) == [shuffled[2], shuffled[4], shuffled[1], shuffled[3], shuffled[0]]


def test_an_order_token_is_a_value() -> None:
    token = OrderToken(1, 2, 3)
    assert token == OrderToken(1, 2, 3)
    assert len({token, OrderToken(1, 2, 3)}) == 1
    with pytest.raises(AttributeError):
        token.offset = 4  # type: ignore[misc]
