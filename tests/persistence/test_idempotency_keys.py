"""Idempotency keys: one caller claims a key, and the others receive the response of that call."""

from functools import partial

import pytest

from persistence.errors import KeyReused, KeyUnderWay
from persistence.idempotency_keys import Claim, IdempotencyKeys
from tests.support.repositories import Repositories, at_once, lose_one_answer

BODY = {"providers": ["gas"], "callbackUrl": "http://client.test"}
RESPONSE = {"requestId": "r1", "status": "OPEN", "jobs": [{"provider": "gas", "attempts": 0}], "share": 0.5}

KEYS = ["k", "a" * 255, "\xe9" * 255, " ", "'; DROP TABLE --", "#", "\N{PILE OF POO}", "idempotency#", "\x00"]


@pytest.fixture
def keys(repositories: Repositories) -> IdempotencyKeys:
    return repositories.keys


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_a_repeated_key_returns_the_stored_response(keys: IdempotencyKeys, key: str) -> None:
    claim = keys.claim(key, BODY, "r1")
    keys.answered(claim, RESPONSE)

    again = keys.claim(key, BODY, "r2")

    assert claim == Claim(key, "r1", None)
    assert again == Claim(key, "r1", RESPONSE)


def test_a_body_with_reordered_members_is_the_same(keys: IdempotencyKeys) -> None:
    keys.answered(keys.claim("k", BODY, "r1"), RESPONSE)

    assert keys.claim("k", dict(reversed(BODY.items())), "r2").answer == RESPONSE


@pytest.mark.parametrize("answered", [True, False])
def test_a_key_with_another_body_is_refused(keys: IdempotencyKeys, answered: bool) -> None:
    claim = keys.claim("k", BODY, "r1")
    if answered:
        keys.answered(claim, RESPONSE)

    with pytest.raises(KeyReused):
        keys.claim("k", BODY | {"providers": ["water"]}, "r2")


def test_different_keys_are_independent(keys: IdempotencyKeys) -> None:
    keys.claim("k", BODY, "r1")

    assert keys.claim("K", BODY, "r2") == Claim("K", "r2", None)


def test_a_key_whose_first_request_is_under_way_is_refused(keys: IdempotencyKeys) -> None:
    keys.claim("k", BODY, "r1")

    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r2")


def test_one_of_many_concurrent_claims_succeeds(keys: IdempotencyKeys) -> None:
    outcomes = at_once(partial(keys.claim, "k", BODY, f"r{number}") for number in range(20))

    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, KeyUnderWay) for outcome in outcomes) == 19


def test_an_abandoned_claim_passes_on_with_its_request_id(repositories: Repositories) -> None:
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


def test_one_of_many_concurrent_takeovers_succeeds(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "first")
    repositories.clock.advance(minutes=1)

    outcomes = at_once(partial(repositories.keys.claim, "k", BODY, f"r{number}") for number in range(20))

    assert [outcome for outcome in outcomes if isinstance(outcome, Claim)] == [Claim("k", "first", None)]
    assert sum(isinstance(outcome, KeyUnderWay) for outcome in outcomes) == 19


def test_two_claims_can_store_the_same_response(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    quick = repositories.keys.claim("k", BODY, "r2")

    repositories.keys.answered(quick, RESPONSE)
    repositories.keys.answered(slow, RESPONSE)

    assert repositories.keys.claim("k", BODY, "r3").answer == RESPONSE


def test_a_key_is_kept_for_a_day(repositories: Repositories) -> None:
    repositories.clock.advance(milliseconds=999)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r1"), RESPONSE)

    repositories.clock.advance(hours=24, milliseconds=-1)
    kept = repositories.keys.claim("k", BODY, "r2")
    repositories.clock.advance(seconds=1)
    forgotten = repositories.keys.claim("k", BODY, "r3")

    assert kept == Claim("k", "r1", RESPONSE)
    assert forgotten == Claim("k", "r3", None)


def test_a_forgotten_key_accepts_another_body(repositories: Repositories) -> None:
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r1"), RESPONSE)
    repositories.clock.advance(hours=25)

    assert repositories.keys.claim("k", {"other": True}, "r2") == Claim("k", "r2", None)


def test_a_response_after_a_key_expired_is_dropped(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(hours=25)
    repositories.keys.claim("k", BODY, "r2")

    repositories.keys.answered(slow, RESPONSE)

    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", BODY, "r3")


def test_a_released_key_is_free(keys: IdempotencyKeys) -> None:
    claim = keys.claim("k", BODY, "r1")

    keys.release(claim)

    keys.answered(claim, RESPONSE)
    assert keys.claim("k", {"other": True}, "r2") == Claim("k", "r2", None)


def test_releasing_an_answered_key_keeps_its_response(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r2"), RESPONSE)

    repositories.keys.release(slow)

    assert repositories.keys.claim("k", BODY, "r3").answer == RESPONSE


def test_releasing_a_takeover_keeps_the_first_request_id(repositories: Repositories) -> None:
    keys = repositories.keys
    slow = keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)

    keys.release(keys.claim("k", BODY, "r2"))

    # The first claim is still valid, and callers right after the release get its request.
    third = keys.claim("k", BODY, "r3")
    keys.answered(slow, RESPONSE)
    assert third == Claim("k", "r1", None)
    assert keys.claim("k", BODY, "r4") == Claim("k", "r1", RESPONSE)
    with pytest.raises(KeyReused):
        keys.claim("k", {"other": True}, "r5")


def test_a_lost_claim_cannot_release_the_key(repositories: Repositories) -> None:
    keys = repositories.keys
    slow = keys.claim("k", BODY, "own")
    repositories.clock.advance(minutes=1)
    keys.claim("k", BODY, "own")

    keys.release(slow)

    with pytest.raises(KeyUnderWay):
        keys.claim("k", BODY, "r3")


def test_a_late_response_does_not_replace_the_stored_one(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(minutes=1)
    repositories.keys.answered(repositories.keys.claim("k", BODY, "r2"), RESPONSE)

    repositories.keys.answered(slow, {"later": True})

    assert repositories.keys.claim("k", BODY, "r3").answer == RESPONSE


def test_a_late_response_to_another_body_is_dropped(repositories: Repositories) -> None:
    slow = repositories.keys.claim("k", BODY, "own")
    repositories.clock.advance(hours=25)
    repositories.keys.claim("k", {"other": True}, "own")

    repositories.keys.answered(slow, RESPONSE)
    repositories.keys.release(slow)

    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", {"other": True}, "own")


def test_a_takeover_keeps_the_key_from_expiring(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "r1")
    repositories.clock.advance(hours=23, minutes=59, seconds=59)
    repositories.keys.claim("k", BODY, "r2")
    repositories.clock.advance(seconds=31)

    assert repositories.keys.claim("k", BODY, "r3") == Claim("k", "r1", None)


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem"])
def test_a_claim_with_a_lost_response_succeeds_when_repeated(repositories: Repositories, operation: str) -> None:
    if operation == "UpdateItem":
        repositories.keys.claim("k", BODY, "r1")
        repositories.clock.advance(minutes=1)
    lose_one_answer(repositories.dynamodb, operation)

    assert repositories.keys.claim("k", BODY, "r1") == Claim("k", "r1", None)


def test_a_key_claimed_by_an_earlier_version_can_be_taken_over(repositories: Repositories) -> None:
    claim = repositories.keys.claim("k", BODY, "r1")
    key = {"pk": repositories.dynamodb.scan(TableName=f"{repositories.prefix}-aggregator")["Items"][0]["pk"]["S"]}
    repositories.aggregator_table.update(
        key | {"sk": "key"}, "REMOVE #owner", condition="#owner = :o", values={"o": claim.owner}
    )
    repositories.clock.advance(minutes=1)

    assert repositories.keys.claim("k", BODY, "r2") == Claim("k", "r1", None)
    with pytest.raises(KeyUnderWay):
        repositories.keys.claim("k", BODY, "r3")


def test_keys_are_not_in_the_due_index(repositories: Repositories) -> None:
    repositories.keys.claim("k", BODY, "r1")

    assert repositories.indexed("aggregator") == set()
