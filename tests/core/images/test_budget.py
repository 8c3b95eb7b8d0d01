"""detector_core.images.budget: what several tasks may use together."""

import threading

import pytest

from detector_core.images.budget import CpuBudget, OverBudget


def test_what_a_task_does_not_use_is_left_for_others() -> None:
    budget = CpuBudget(10)
    with budget.grant(6) as grant:
        assert grant.seconds == 6
        grant.used = 1
    assert budget.used == 1
    with budget.grant(20) as grant:
        assert grant.seconds == 9
        grant.used = 2.5
    budget.charge(1.5)
    assert budget.used == 5


def test_a_task_that_ends_with_an_error_has_used_its_whole_grant() -> None:
    budget = CpuBudget(10)
    with pytest.raises(ZeroDivisionError), budget.grant(6):
        raise ZeroDivisionError
    assert budget.used == 6


def test_a_budget_that_is_used_up_grants_nothing() -> None:
    budget = CpuBudget(2)
    with budget.grant(2):
        pass
    with pytest.raises(OverBudget), budget.grant(0.1):
        pass
    with pytest.raises(OverBudget):
        budget.charge(0.1)
    assert budget.used == pytest.approx(2.1)


def test_without_a_limit_everything_is_granted() -> None:
    budget = CpuBudget()
    with budget.grant(100) as one, budget.grant(100) as other:
        assert (one.seconds, other.seconds) == (100, 100)
        one.used, other.used = 1, 2
    budget.charge(1000)
    assert budget.used == 1003


def test_tasks_wait_for_one_another_and_never_exceed_the_budget_together() -> None:
    budget, lock = CpuBudget(10), threading.Lock()
    granted, most = 0.0, 0.0

    def task() -> None:
        nonlocal granted, most
        with budget.grant(4) as grant:
            with lock:
                granted += grant.seconds
                most = max(most, granted)
            grant.used = 0.5
            with lock:
                granted -= grant.seconds - grant.used

    threads = [threading.Thread(target=task) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert budget.used == 6
    assert most <= 10
