"""Writes the report of a run."""

from collections import Counter
from collections.abc import Iterator
from statistics import median

from tests.faults.chaos.run import Outcome

# Lines of each kind.
_SHOWN = 20


def report(outcome: Outcome) -> str:
    """The report in Markdown, which is also readable as plain text."""
    return "\n".join(_lines(outcome)) + "\n"


def _lines(outcome: Outcome) -> Iterator[str]:
    plan, count = outcome.plan, outcome.count
    yield f"# Chaos, seed {plan.seed}: {'clean' if outcome.clean else 'NOT CLEAN'}"
    yield ""
    yield f"{plan.seconds:.0f} s under load, {plan.rate:g} requests/s, {len(outcome.faults)} faults."
    yield ""
    yield f"- requests asked {count.asked}, accepted {count.accepted}, ended {count.ended}"
    yield f"- callbacks at the receiver {count.callbacks}, of {count.webhook_ids} webhook-ids"
    yield f"- **lost = {len(count.lost)}, double-counted = {len(count.double)}, wrong = {len(count.wrong)}**"
    yield f"- steps on the queue and open records at the end: {len(outcome.left)}"
    yield f"- broken invariants of the queue at the end: {len(outcome.broken)}"
    yield f"- programs that ended unexpectedly: {', '.join(outcome.died) or 'none'}"
    if not plan.faults:
        yield f"- programs whose memory grew: {', '.join(outcome.swollen) or 'none'}"
    for title, found in (("lost", count.lost), ("double-counted", count.double), ("wrong", count.wrong)):
        yield from (f"  - {title}: {line}" for line in found[:_SHOWN])
    yield from (f"  - left: {name}" for name in outcome.left[:_SHOWN])
    yield from (f"  - the queue: {line}" for line in outcome.broken[:_SHOWN])
    yield ""
    if plan.faults:
        yield from _faults(outcome)
        yield ""
    yield from _memory(outcome)


def _faults(outcome: Outcome) -> Iterator[str]:
    yield "Time to heal: from the mending of a fault until the last request that it was the first to delay has ended."
    yield ""
    yield f"| {'fault':<28} | times | healed in, median | max |"
    yield f"|{'-' * 30}|------:|------------------:|----:|"
    times = Counter(injected.fault.name for injected in outcome.faults)
    for name in sorted(times):
        healed = outcome.healed[name]
        yield f"| {name:<28} | {times[name]:>5} | {median(healed):>15.1f} s | {max(healed):.1f} s |"


def _memory(outcome: Outcome) -> Iterator[str]:
    yield f"| {'resident memory, MB':<20} | first |   1/4 |   1/2 |   3/4 |  last |  peak | processes |"
    yield f"|{'-' * 22}|{'------:|' * 6}----------:|"
    for name, resident in outcome.memory.items():
        sizes = " | ".join(f"{size:5.0f}" for size in (*resident.quarters, resident.peak))
        yield f"| {name:<20} | {sizes} | {resident.processes:>9} |"
