"""What has come of a run and was not shown yet."""

from __future__ import annotations

import logging
import threading

import pytest

from cli.showing import made
from cli.site import until
from remctl.cli import _work
from remctl.cli._work import Output, Said, _Heard, _Pile
from remctl.types import Stream

PIECE = Output("h", Stream.STDOUT, b"xxxxx")


@pytest.fixture
def pile(monkeypatch: pytest.MonkeyPatch) -> _Pile:
    """Give a pile that is full with more than ten bytes, or more than five items."""
    monkeypatch.setattr(_work, "PILE", 10)
    monkeypatch.setattr(_work, "PIECES", 5)
    return _Pile()


def test_all_that_waits_is_taken_at_once_and_in_order(pile: _Pile) -> None:
    result = made("h")
    pile.put(PIECE, 5, wait=True)
    pile.put(result)
    assert pile.take(1) == [PIECE, result]
    assert pile.take(0) == []
    pile.put(result)
    pile.end()
    assert pile.take(1) == [result]
    assert pile.take(1) is None


@pytest.mark.parametrize("way", ["take", "drop"])
def test_output_waits_for_room_and_not_for_ever(pile: _Pile, way: str) -> None:
    for _ in range(3):
        pile.put(PIECE, 5, wait=True)
    assert pile.full
    put = threading.Thread(target=pile.put, args=[PIECE, 5], kwargs={"wait": True})
    put.start()
    put.join(0.1)
    assert put.is_alive()
    if way == "take":
        assert len(pile.take(1) or []) == 3
        put.join()
        assert pile.take(1) == [PIECE]
    else:
        pile.drop()
        put.join()
    assert not pile.full


def test_results_and_messages_do_not_wait(pile: _Pile) -> None:
    heard = _Heard(pile)
    for _ in range(10):
        pile.put(made("h"), 100)
        heard.emit(logging.makeLogRecord({"msg": "the tickets %s", "args": ("end",)}))
    assert pile.full
    assert (pile.take(1) or []).count(Said("the tickets end")) == 10


def test_who_waits_is_woken_by_the_end(pile: _Pile) -> None:
    taken: list[object] = []
    waiting = threading.Thread(target=lambda: taken.append(pile.take(20)))
    waiting.start()
    pile.end()
    until(lambda: taken == [None])
    waiting.join()
