"""A store that does not answer is left alone for a while."""

from termite.engine.recall.shared_store.circuit_breaker import OFF_S, CircuitBreaker


def test_a_failure_keeps_everybody_away_for_half_a_minute() -> None:
    breaker = CircuitBreaker()
    assert breaker.may_ask(0.0)
    assert breaker.note_failure(10.0), "the first one is told"
    assert not breaker.may_ask(10.0) and not breaker.may_ask(10.0 + OFF_S - 0.1)
    assert breaker.may_ask(10.0 + OFF_S)
    assert not breaker.note_failure(10.0 + OFF_S)
    assert not breaker.may_ask(11.0 + OFF_S)


def test_calls_that_were_under_way_do_not_keep_it_open_for_longer() -> None:
    breaker = CircuitBreaker()
    for now_s in (0.0, 1.0, 5.0):
        breaker.note_failure(now_s)
    assert breaker.may_ask(OFF_S) and breaker.failures == 3
