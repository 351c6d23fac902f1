"""Idempotency keys: one of those who bring a key is let through, the others are told what came of it."""

from functools import partial

import pytest

from persistence.errors import KeyReused, KeyUnderWay
from persistence.idempotency_keys import Claim, IdempotencyKeys
from tests.support.repositories import Repositories, at_once, lose_one_answer

BODY = {"providers": ["gas"], "callbackUrl": "http://client.test"}
ANSWER = {"requestId": "r1", "status": "OPEN", "jobs": [{"provider": "gas", "attempts": 0}], "share": 0.5}

KEYS = ["k", "a" * 255, "\xe9" * 255, " ", "'; DROP TABLE --", "#", "\N{PILE OF POO}", "idempotency#", "\x00"]


@pytest.fixture
def keys(repositories: Repositories) -> IdempotencyKeys:
    return repositories.keys


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_an_unused_key_is_taken_and_its_answer_is_given_again(keys: IdempotencyKeys, key: str) -> None:
    claim = keys.claim(key, BODY, "r1")
    keys.answered(claim, ANSWER)

    again = keys.claim(key, BODY, "r2")

    assert claim == Claim(key, "r1", None)
    assert again == Claim(key, "r1", ANSWER)


def test_the_order_of_a_bodys_members_does_not_matter(keys: IdempotencyKeys) -> None:
    keys.answered(keys.claim("k", BODY, "r1"), ANSWER)

    assert keys.claim("k", dict(reversed(BODY.items())), "r2").answer == ANSWER


@pytest.mark.parametrize("answered", [True, False])
def test_a_key_is_not_taken_for_another_body(keys: IdempotencyKeys, answered: bool) -> None:
    claim = keys.claim("k", BODY, "r1")
    if answered:
        keys.answered(claim, ANSWER)

    with pytest.raises(KeyReused):
        keys.claim("k", BODY | {"providers": ["water"]}, "r2")


def test_different_keys_do_not_get_in_each_others_way(keys: IdempotencyKeys) -> None:
    keys.claim("k", BODY, "r1")

    assert keys.claim("K", BODY, "r2") == Claim("K", "r2", None)


def test_a_key_whose_first_request_is_under_way_is_refused(keys: IdempotencyKeys) -> None:
    keys.claim("k", BODY, "r1")

    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r2")


def test_of_many_who_bring_the_same_key_one_is_let_through(keys: IdempotencyKeys) -> None:
    answers = at_once(partial(keys.claim, "k", BODY, f"r{number}") for number in range(20))

    assert sum(isinstance(answer, Claim) for answer in answers) == 1
    assert sum(isinstance(answer, KeyUnderWay) for answer in answers) == 19


def test_who_takes_over_from_one_that_died_continues_under_its_id(repositories: Repositories) -> None:
    keys = repositories.keys
    keys.claim("k", BODY, "r1")

    repositories.clock.advance(seconds=29)
    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r2")
    repositories.clock.advance(seconds=1)
    claim = keys.claim("k", BODY, "r2")

    assert claim == Claim("k", "r1", None)
    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r3")


def test_of_many_who_would_take_over_one_does(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "first")
    repositories.clock.advance(minutes=1)

    answers = at_once(partial(repositories.keys.claim, "k", BODY, f"r{number}") for number in range(20))

    assert [answer for answer in answers if isinstance(answer, Claim)] == [Claim("k", "first", None)]
    assert sum(isinstance(answer, KeyUnderWay) for answer in answers) == 19


def test_both_who_were_let_through_may_answer_and_the_key_stays_answered(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    quick = repositories.keys.claim("k", BODY, "r2")

    repositories.keys.answered(quick, ANSWER)
    repositories.keys.answered(slow, ANSWER)

    assert repositories.keys.claim("k", BODY, "r3").answer == ANSWER


def test_a_key_is_kept_for_a_day_and_then_forgotten(repositories: Repositories) -> None:
    repositories.clock.advance(milliseconds=999)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r1"), ANSWER)

    repositories.clock.advance(hours=24, milliseconds=-1)
    kept = repositories.keys.claim("k", BODY, "r2")
    repositories.clock.advance(seconds=1)
    forgotten = repositories.keys.claim("k", BODY, "r3")

    assert kept == Claim("k", "r1", ANSWER)
    assert forgotten == Claim("k", "r3", None)


def test_a_forgotten_key_may_come_with_another_body(repositories: Repositories) -> None:
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r1"), ANSWER)
    repositories.clock.advance(hours=25)

    assert repositories.keys.claim("k", {"other": True}, "r2") == Claim("k", "r2", None)


def test_an_answer_that_comes_after_the_key_was_forgotten_is_not_given_to_others(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(hours=25)
    repositories.keys.claim("k", BODY, "r2")

    repositories.keys.answered(slow, ANSWER)

    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", BODY, "r3")


def test_a_key_that_was_given_back_is_free(keys: IdempotencyKeys) -> None:
    claim = keys.claim("k", BODY, "r1")

    keys.release(claim)

    keys.answered(claim, ANSWER)
    assert keys.claim("k", {"other": True}, "r2") == Claim("k", "r2", None)


def test_a_key_that_another_has_answered_is_not_given_back(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r2"), ANSWER)

    repositories.keys.release(slow)

    assert repositories.keys.claim("k", BODY, "r3").answer == ANSWER


def test_who_took_over_and_is_refused_leaves_the_id_to_the_first_one(repositories: Repositories) -> None:
    keys = repositories.keys
    slow = keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)

    keys.release(keys.claim("k", BODY, "r2"))

    # The first one goes on, and its request is that of all who come at once after the refusal.
    third = keys.claim("k", BODY, "r3")
    keys.answered(slow, ANSWER)
    assert third == Claim("k", "r1", None)
    assert keys.claim("k", BODY, "r4") == Claim("k", "r1", ANSWER)
    with pytest.raises(KeyReused):
        keys.claim("k", {"other": True}, "r5")


def test_who_has_lost_the_key_cannot_give_it_back(repositories: Repositories) -> None:
    keys = repositories.keys
    slow = keys.claim("k", BODY, "own")
    repositories.clock.advance(minutes=1)
    keys.claim("k", BODY, "own")

    keys.release(slow)

    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r3")


def test_a_late_answer_does_not_replace_the_one_that_was_given(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r2"), ANSWER)

    repositories.keys.answered(slow, {"later": True})

    assert repositories.keys.claim("k", BODY, "r3").answer == ANSWER


def test_an_answer_to_another_body_is_not_kept_for_a_later_one(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "own")
    repositories.clock.advance(hours=25)
    repositories.keys.claim("k", {"other": True}, "own")

    repositories.keys.answered(slow, ANSWER)
    repositories.keys.release(slow)

    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", {"other": True}, "own")


def test_a_key_is_not_forgotten_while_it_is_taken_over(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(hours=23, minutes=59, seconds=59)
    repositories.keys.claim("k", BODY, "r2")
    repositories.clock.advance(seconds=31)

    assert repositories.keys.claim("k", BODY, "r3") == Claim("k", "r1", None)


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_claim_whose_answer_was_lost_is_not_under_way(repositories: Repositories, operation: str) -> None:
    if operation == "UpdateItem":
        repositories.keys.claim("k", BODY, "r1")
        repositories.clock.advance(minutes=1)
    lose_one_answer(repositories.dynamodb, operation)

    assert repositories.keys.claim("k", BODY, "r1") == Claim("k", "r1", None)


def test_a_key_that_an_earlier_version_took_is_taken_over(repositories: Repositories) -> None:
    claim = repositories.keys.claim("k", BODY, "r1")
    key = {"pk": repositories.dynamodb.scan(TableName=f"{repositories.prefix}-aggregator")["Items"][0]["pk"]["S"]}
    repositories.aggregator_table.update(
        key | {"sk": "key"}, "REMOVE #owner", condition="#owner = :o", values={"o": claim.owner}
    )
    repositories.clock.advance(minutes=1)

    assert repositories.keys.claim("k", BODY, "r2") == Claim("k", "r1", None)
    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", BODY, "r3")


def test_keys_are_not_requests(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "r1")

    assert repositories.indexed("aggregator") == set()
