"""The scenes: each makes a program reach a failpoint, yields while it dies and restarts, and checks the outcome.

Before its first yield a scene arms its failpoint. A scene that yields again has to wait, and is resumed last.
"""

import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

import specs
from persistence.records.timestamps import to_text, utc_now
from tests.faults.failpoints.scene import Scene, large_result
from tests.support.servers.receiver import Answer
from tests.support.system import eventually

Playing = Iterator[None]


def asked_client(scene: Scene) -> Playing:
    """A caller creates a request at the client, which dies before it responds."""
    provider = scene.steady()
    scene.arm()
    scene.is_cut_off(specs.CLIENT, "createRequest", body={"providers": [provider]})
    yield
    newest = scene.system.call(specs.CLIENT, "listRequests", {"limit": 1}).json()["requests"][0]
    scene.is_at_the_client(newest["requestId"])


def asked_again(scene: Scene) -> Playing:
    """The API dies before it writes the request; the caller, who has a quota, repeats the call."""
    provider, caller, api = scene.steady(), scene.limited(), scene.failpoint.program
    body: dict[str, object] = {"providers": [provider]}
    if api == specs.AGGREGATOR:
        body["callbackUrl"] = scene.receiver.url(scene.hook)
    scene.arm()
    scene.is_cut_off(api, "createRequest", body=body, **caller)
    yield
    answer = scene.call(api, "createRequest", body=body, **caller)
    assert answer.status_code == 202
    if api == specs.CLIENT:
        scene.is_at_the_client(answer.json()["requestId"])
    else:
        scene.has_come_back()


def client_cancels(scene: Scene) -> Playing:
    """A caller cancels at the client, which dies before it responds."""
    request_id = _under_way_at_client(scene)
    scene.arm()
    scene.is_cut_off(specs.CLIENT, "cancelRequest", {"requestId": request_id})
    yield
    scene.is_at_the_client(request_id, "CANCELLED")


def client_asked(scene: Scene) -> Playing:
    """The client has accepted a request; a program dies later."""
    provider = scene.large()
    scene.arm()
    request_id = scene.system.ask(provider)
    yield
    scene.is_at_the_client(request_id)


def submission_fails(scene: Scene) -> Playing:
    """The aggregator is down when the worker submits."""
    scene.system.kill("aggregator")
    provider = scene.steady()
    scene.arm()
    request_id = scene.system.ask(provider)
    yield
    scene.system.start("aggregator")
    scene.is_at_the_client(request_id)


def submitted_too_late(scene: Scene) -> Playing:
    """The deadline passes before a worker can submit; the client's request ends there."""
    late = scene.soon()
    scene.system.kill("worker", signal.SIGSTOP)
    request_id = scene.system.ask(scene.steady(), **late)
    eventually(lambda: datetime.now(UTC) > datetime.fromisoformat(late["deadline"]))
    scene.arm()
    scene.system.kill("worker", signal.SIGCONT)
    yield
    assert scene.system.read_until_ended(request_id)["status"] == "FAILED"


def cancellation_submitted(scene: Scene) -> Playing:
    """The client has accepted a cancellation; the worker dies while it submits that to the aggregator."""
    request_id = _under_way_at_client(scene)
    scene.arm()
    assert scene.system.call(specs.CLIENT, "cancelRequest", {"requestId": request_id}).status_code == 202
    yield
    scene.is_at_the_client(request_id, "CANCELLED")


def cancelled_too_late(scene: Scene) -> Playing:
    """A caller cancels a request that has ended undelivered; the worker dies once it has learnt that."""
    request_id = scene.undelivered()
    scene.arm()
    assert scene.system.call(specs.CLIENT, "cancelRequest", {"requestId": request_id}).status_code == 202
    yield
    scene.is_at_the_client_only(request_id)


def asked_for_too_early(scene: Scene) -> Playing:
    """The worker asks for a result too early, and dies once it has recorded when to ask again."""
    request_id = scene.system.ask(scene.provider("slow", Answer(200, body=b"1", delay=4)))
    eventually(lambda: scene.system.read(request_id)["submission"]["status"] == "ACCEPTED")
    scene.arm()
    scene.have_asked_for(request_id)
    yield
    scene.is_at_the_client(request_id)


def asked_for(scene: Scene) -> Playing:
    """The worker asks for a result whose delivery has failed, and dies once the client has it."""
    request_id = scene.undelivered()
    scene.arm()
    scene.have_asked_for(request_id)
    yield
    scene.is_at_the_client_only(request_id)


def handed_over_with_a_key(scene: Scene) -> Playing:
    """A caller repeats a call with an Idempotency-Key until it gets a response, and has made one request."""
    body = {"providers": [scene.steady()], "callbackUrl": scene.receiver.url(scene.hook)}
    create = partial(scene.call, specs.AGGREGATOR, "createRequest", None, body)
    scene.arm()
    scene.is_cut_off(specs.AGGREGATOR, "createRequest", body=body, **{"Idempotency-Key": scene.hook})
    yield
    if scene.failpoint.name != "aggregator.create.claimed":
        scene.has_come_back()
    # The dead call holds the key for half a minute.
    yield
    key = {"Idempotency-Key": scene.hook}
    accepted = eventually(lambda: (answer := create(**key)).status_code == 202 and answer, 60, pause=0.5)
    scene.has_come_back()
    assert create(**key).json()["requestId"] == accepted.json()["requestId"]


def refused_with_a_key(scene: Scene) -> Playing:
    """A refused call keeps no key: its repetition is refused too, once the dead call no longer holds the key."""
    body = {"providers": ["nobody"], "callbackUrl": scene.receiver.url(scene.hook)}
    key = {"Idempotency-Key": scene.hook}
    create = partial(scene.call, specs.AGGREGATOR, "createRequest", None, body)
    scene.arm()
    scene.is_cut_off(specs.AGGREGATOR, "createRequest", body=body, **key)
    yield
    yield
    assert eventually(lambda: (status := create(**key).status_code) != 409 and status, 60, pause=0.5) == 422


def all_redelivered(scene: Scene) -> Playing:
    """Failed deliveries are to be redelivered; the aggregator dies before it has enqueued all of them."""
    scene.receiver.answers(scene.hook, Answer(410), Answer(204))
    request_id = scene.hand_over(scene.steady())
    record = eventually(lambda: (d := scene.system.look(request_id))["delivery"]["status"] == "FAILED" and d)
    scene.arm()
    scene.is_cut_off(specs.AGGREGATOR, "redeliverFailed", body={"since": record["createdAt"]})
    yield
    scene.has_come_back()


def told_to(verb: str, status: str) -> Callable[[Scene], Playing]:
    """The aggregator gets an order (`verb`) for a request that has ended, and dies before it responds."""

    def play(scene: Scene) -> Playing:
        provider = scene.provider("twice", *[Answer(500)] * 2, Answer(200, body=b"1")) if status else scene.steady()
        request_id = scene.hand_over(provider)
        eventually(lambda: scene.system.look(request_id)["delivery"]["status"] == "SUCCEEDED")
        scene.arm()
        scene.is_cut_off(specs.AGGREGATOR, f"{verb}Request", {"requestId": request_id})
        yield
        first, second = eventually(lambda: len(c := scene.receiver.calls(scene.hook)) == 2 and c)
        assert (first.webhook_id == second.webhook_id) is (verb == "redeliver")
        assert eventually(lambda: (d := scene.system.look(request_id))["status"] == "COMPLETE" and d)

    return play


def cancelled(scene: Scene) -> Playing:
    """A caller cancels at the aggregator, which dies before it responds."""
    request_id = scene.hand_over(scene.failing())
    scene.arm()
    scene.is_cut_off(specs.AGGREGATOR, "cancelRequest", {"requestId": request_id})
    yield
    scene.has_come_back("CANCELLED")
    assert scene.system.order(request_id, "cancel").status_code == 200


def updated(scene: Scene) -> Playing:
    """A caller completes a job by updateJob, and the aggregator dies before it responds."""
    provider = scene.failing()
    request_id = scene.hand_over(provider)
    update = {"provider": provider, "status": "DONE", "result": large_result()}
    scene.arm()
    scene.is_cut_off(specs.AGGREGATOR, "updateJob", {"id": request_id}, update)
    yield
    if scene.failpoint.name != "aggregator.update.stored":
        scene.has_come_back()
    # A second call completes the job, or confirms that it is complete.
    assert scene.call(specs.AGGREGATOR, "updateJob", {"id": request_id}, update).status_code == 200
    scene.has_come_back()


def handed_over(*answers: Answer, provider: str = "steady", status: str = "COMPLETE") -> Callable[[Scene], Playing]:
    """The aggregator has accepted a request for a provider with these responses; the worker dies."""

    def play(scene: Scene) -> Playing:
        scene.provider(provider, *answers)
        scene.arm()
        scene.hand_over(provider)
        yield
        scene.has_come_back(status)

    return play


def large_handed_over(scene: Scene) -> Playing:
    """The result is so large that its parts are written before the job completion."""
    provider = scene.large()
    scene.arm()
    scene.hand_over(provider)
    yield
    scene.has_come_back()


def one_of_two(scene: Scene) -> Playing:
    """The worker that runs both jobs of a request dies when only the first is complete."""
    providers = [scene.steady(), scene.provider("slow", Answer(200, body=b"2", delay=1))]
    scene.arm()
    scene.hand_over(*providers)
    yield
    scene.has_come_back()


def slow_callback(scene: Scene) -> Playing:
    """The receiver is slow, and the worker returns the provider's permit before it responds."""
    scene.receiver.answers(scene.hook, Answer(204, delay=1))
    scene.arm()
    scene.hand_over(scene.steady())
    yield
    scene.has_come_back()


def refused_callback(scene: Scene) -> Playing:
    """The receiver refuses the first attempt."""
    scene.receiver.answers(scene.hook, Answer(500), Answer(204))
    scene.arm()
    scene.hand_over(scene.steady())
    yield
    scene.has_come_back()


def deadline_passes(by: str) -> Callable[[Scene], Playing]:
    """A deadline passes while no worker runs; the program that notices it dies."""

    def play(scene: Scene) -> Playing:
        provider = scene.steady()
        scene.system.kill("worker", signal.SIGSTOP)
        if by == "worker":
            scene.system.kill("reconciler")
        scene.arm()
        request_id = scene.hand_over(provider, **scene.soon())
        if by == "worker":
            eventually(lambda: scene.system.look(request_id)["deadline"] < to_text(utc_now()))
            scene.system.kill("worker", signal.SIGCONT)
        yield
        if by == "worker":
            scene.system.start("reconciler")
        else:
            scene.system.kill("worker", signal.SIGCONT)
        scene.has_come_back("FAILED")

    return play


def queue_lost(scene: Scene) -> Playing:
    """The queue is emptied before a worker has claimed a job; the reconciler dies while it heals that."""
    provider = scene.steady()
    scene.system.kill("worker", signal.SIGSTOP)
    request_id = scene.system.ask(provider) if "retrieval" in scene.failpoint.name else scene.hand_over(provider)
    scene.arm()
    scene.empty_redis()
    yield
    scene.system.kill("worker", signal.SIGCONT)
    if "retrieval" in scene.failpoint.name:
        scene.is_at_the_client(request_id)
    else:
        scene.has_come_back()


def _under_way_at_client(scene: Scene) -> str:
    request_id = scene.system.ask(scene.failing())
    eventually(lambda: scene.system.read(request_id)["submission"]["status"] == "ACCEPTED")
    return request_id


_TRIED_TWICE = (Answer(500), Answer(200, body=b"1"))
SCENES: dict[str, Callable[[Scene], Playing]] = {
    "client.create.counted": asked_again,
    "client.create.written": asked_client,
    "client.create.enqueued": asked_client,
    "client.cancel.written": client_cancels,
    "client.callback.stored": client_asked,
    "client.callback.received": client_asked,
    "submit.sending": client_asked,
    "submit.sent": client_asked,
    "submit.accepted": client_asked,
    "submit.failed": submission_fails,
    "submit.refused": submitted_too_late,
    "submit.cancel.sent": cancellation_submitted,
    "submit.cancelled": cancellation_submitted,
    "submit.cancel.late": cancelled_too_late,
    "submit.checked": asked_for_too_early,
    "submit.received": asked_for,
    "aggregator.create.claimed": handed_over_with_a_key,
    "aggregator.create.refused": refused_with_a_key,
    "aggregator.create.counted": asked_again,
    "aggregator.create.written": handed_over_with_a_key,
    "aggregator.create.enqueued": handed_over_with_a_key,
    "aggregator.create.answered": handed_over_with_a_key,
    "aggregator.cancel.written": cancelled,
    "aggregator.cancel.dropped": cancelled,
    "aggregator.retry.written": told_to("retry", "FAILED"),
    "aggregator.redeliver.written": told_to("redeliver", ""),
    "aggregator.redeliver-all.written": all_redelivered,
    "aggregator.update.stored": updated,
    "aggregator.update.written": updated,
    "aggregator.update.dropped": updated,
    "fetch.taken": handed_over(),
    "fetch.got": handed_over(),
    "fetch.stored": large_handed_over,
    "fetch.one-ended": one_of_two,
    "fetch.ended": handed_over(),
    "fetch.gave-up": handed_over(Answer(500), provider="twice", status="FAILED"),
    "fetch.failed": handed_over(*_TRIED_TWICE),
    "fetch.requeued": handed_over(*_TRIED_TWICE),
    "fetch.closed": deadline_passes("worker"),
    "fetch.dropped": deadline_passes("worker"),
    "fetch.place-given-back": slow_callback,
    "fetch.finished": handed_over(),
    "deliver.posting": handed_over(),
    "deliver.posted": handed_over(),
    "deliver.marked": handed_over(),
    "deliver.failed": refused_callback,
    "deliver.requeued": refused_callback,
    "reconcile.closed": deadline_passes("reconciler"),
    "reconcile.dropped": deadline_passes("reconciler"),
    "reconcile.request.put": queue_lost,
    "reconcile.request.looked": queue_lost,
    "reconcile.retrieval.put": queue_lost,
    "reconcile.retrieval.looked": queue_lost,
}
