"""The redrive header: what it carries, and whose it has to be to say anything."""

from __future__ import annotations

from pipeline.consume.redriven import first_life, first_lives, redrive_header
from pipeline.model.record import FirstLife, OrderToken
from pipeline.model.stamp import REDRIVE_HEADER, REDRIVE_PRODUCER

LIFE = FirstLife(OrderToken(2, 5_000_000_000, 7), "shop-1", 41, ("orders.2", 3))


def test_a_first_life_comes_out_as_it_went_in() -> None:
    assert first_life(redrive_header(LIFE, 12)) == LIFE
    assert first_life(b'{"order":[2,5000000000,7],"producer":"shop-1","seq":41,"dead":12}') == FirstLife(
        LIFE.order, "shop-1", 41
    )


def test_a_place_that_cannot_be_read_is_left_out_and_what_else_cannot_makes_it_no_header() -> None:
    for place in (b'["t"]', b'["t",-1]', b'["t","0"]', b"[1,0]", b'"t"'):
        header = b'{"order":[0,1,2],"producer":"p","seq":3,"from":' + place + b"}"
        assert first_life(header) == FirstLife(OrderToken(0, 1, 2), "p", 3), place
    for told in (b'"order":[0,1],"producer":"p","seq":3', b'"order":[0,1,true],"producer":"p","seq":3', b'"order":[0,1,2]'):
        assert first_life(b"{" + told + b"}") is None, told


def test_a_header_counts_in_messages_of_redrives_only() -> None:
    headers = [[], [("trace", b"x"), (REDRIVE_HEADER, redrive_header(LIFE, 12))]]
    assert first_lives(f"{REDRIVE_PRODUCER}run", headers) == {1: LIFE}
    assert first_lives("somebody", headers) == {}
