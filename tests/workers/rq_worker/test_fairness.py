"""Fairness groups: no owner gets more of a worker's threads than a multiple of those that stay free."""

from concurrent.futures import ThreadPoolExecutor

from workers.rq_worker.fairness import FairnessGroups


def test_a_full_group_refuses_a_job() -> None:
    shares = FairnessGroups(20)
    for number in range(17):
        shares.join(f"gas-{number}", "gas")

    moved = [shares.move(f"gas-{number}", "delivering") for number in range(17)]

    # A group has at most four times the three threads that stay free.
    assert moved == [True] * 12 + [False] * 5
    assert shares.free == 3
    assert shares.rooms() == {"delivering": 0, "gas": 1}


def test_a_busy_worker_admits_one_job_per_group() -> None:
    shares = FairnessGroups(2)
    shares.join("a", "gas")
    shares.join("b", "gas")

    assert shares.move("a", "delivering")
    assert not shares.move("b", "delivering")
    assert shares.move("a", "delivering")


def test_a_job_that_has_left_is_in_no_group() -> None:
    shares = FairnessGroups(2)
    shares.join("a", "gas")
    shares.leave("a")
    shares.leave("a")

    assert not shares.move("a", "delivering")
    assert shares.free == 2


def test_jobs_moved_by_many_threads_count_once() -> None:
    shares = FairnessGroups(1000)
    for number in range(200):
        shares.join(str(number), "gas")

    def move(number: int) -> None:
        for share in ("delivering", "gas", "writing", "delivering"):
            shares.move(str(number), share)
        shares.leave(str(number))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(move, range(200)))

    assert shares.free == 1000
    assert shares.rooms() == {}
    assert shares.most() == 800
