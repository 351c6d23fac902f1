"""The tools of RQ with our worker and queues: `rq worker`, `rq requeue` and RQ Dashboard work."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
import requests
import rq
from rq.rate_limit import RateLimitRegistry
from rq.suspension import resume, suspend

from datahog.settings import Settings
from providers.model import Provider
from tests.support.engines.rq_state import FETCH, failure, leftovers, names, running, step
from tests.support.system import eventually, free_ports
from tests.support.workers.worker_process import CONCURRENCY, ROOT, WorkerProcess
from workers.queue import QUEUES, Queue

# A queue that none of our workers claims from.
THEIRS = "theirs"


@pytest.fixture(scope="module", autouse=True)
def worker(shared_worker: WorkerProcess) -> WorkerProcess:
    """Starts the worker of this module's tests."""
    return shared_worker


@pytest.fixture(autouse=True)
def limits(providers: dict[str, Provider]) -> None:
    """Gas has one permit, water two."""
    providers["gas"] = Provider(url="http://x", concurrency=1)
    providers["water"] = Provider(url="http://x", concurrency=2)


class Tools:
    """RQ's command line."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url

    def run(self, command: str, *arguments: str) -> str:
        """Runs a command, which must succeed; returns its output."""
        options = ("-u", self._redis_url, "-S", "rq.serializers.JSONSerializer")
        done = subprocess.run(
            [sys.executable, "-m", "rq.cli", command, *options, *arguments],
            cwd=ROOT,
            env=os.environ | {"DATAHOG_REDIS_URL": self._redis_url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def tools(engines: Settings) -> Tools:
    return Tools(engines.redis_url)


class Dashboard:
    """RQ Dashboard on a port of its own; leaving its block stops it."""

    def __init__(self, redis_url: str) -> None:
        self._url = f"http://127.0.0.1:{(port := free_ports()['viewer_port'])}"
        command = [sys.executable, "-m", "rq_dashboard", "-b", "127.0.0.1", "-p", str(port), "-u", redis_url, "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self._responds)

    def page(self, path: str) -> str:
        """Returns a page of the dashboard."""
        response = requests.get(f"{self._url}/{path}", timeout=10)
        assert response.status_code == 200, response.text
        return response.text

    def data(self, path: str) -> Any:
        """Returns the data that a page loads."""
        response = requests.get(f"{self._url}/0/data/{path}.json", timeout=10)
        assert response.status_code == 200, response.text
        return response.json()

    def jobs(self, registry: str) -> list[str]:
        """The ids of the jobs in a registry, as its page lists them."""
        return [job["id"] for job in self.data(f"jobs/{FETCH}/{registry}/8/asc/1")["jobs"]]

    def press(self, path: str) -> None:
        """Makes the call of a button."""
        response = requests.post(f"{self._url}/{path}", timeout=10)
        assert (response.status_code, response.json()["status"]) == (200, "OK")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _responds(self) -> bool:
        assert self._process.poll() is None
        with suppress(requests.ConnectionError):
            return requests.get(self._url, timeout=10).ok
        return False


@pytest.fixture(scope="module")
def dashboard(engines: Settings) -> Iterator[Dashboard]:
    """The dashboard of this module's tests."""
    dashboard = Dashboard(engines.redis_url)
    yield dashboard
    dashboard.close()


def failed_once(connection: "redis.Redis", queue: Queue, *ids: str, provider: str | None = None) -> None:
    """Makes these jobs fail once; each would succeed in its next run."""
    queue.put(*(step("fail_once", job_id, provider=provider) for job_id in ids))
    for job_id in ids:
        assert "not yet" in failure(connection, job_id)


def test_rq_worker_drains_a_queue(connection: "redis.Redis", queue: Queue, tools: Tools) -> None:
    queue.put(
        step("note", "plain", queue=THEIRS),
        step("later", "again", "0", queue=THEIRS),
        step("broken", job_id="poison", queue=THEIRS),
        step("note", "due", queue=THEIRS, wait=-1),
        *(step("note", f"water-{number}", queue=THEIRS, provider="water") for number in range(4)),
    )

    tools.run("worker", "--burst", "--with-scheduler", THEIRS)

    assert sorted(names(connection)) == ["again", "due", "plain", *(f"water-{number}" for number in range(4))]
    assert rq.Queue(THEIRS, connection=connection).failed_job_registry.get_job_ids() == ["poison"]
    assert not RateLimitRegistry("water", connection).get_allowed_job_ids()


def test_rq_worker_with_its_scheduler_runs_delayed_jobs(connection: "redis.Redis", queue: Queue, tools: Tools) -> None:
    queue.put(
        step("later", "again", "0.5", queue=THEIRS),
        *(step("note", f"water-{number}", queue=THEIRS, provider="water", wait=1) for number in range(3)),
    )

    tools.run("worker", "--with-scheduler", "--max-jobs", "5", THEIRS)

    assert sorted(names(connection)) == ["again", "water-0", "water-1", "water-2"]
    assert not leftovers(connection)


@pytest.mark.parametrize("which", [("--all",), ("a", "b")], ids=["all", "by id"])
def test_rq_requeue_runs_failed_jobs_again(
    connection: "redis.Redis", queue: Queue, tools: Tools, which: tuple[str, ...]
) -> None:
    failed_once(connection, queue, "a", "b")

    tools.run("requeue", "--queue", FETCH, *which)

    eventually(lambda: sorted(names(connection)) == ["a", "b"])
    eventually(lambda: not leftovers(connection))


def test_a_requeued_job_waits_for_a_permit_and_returns_it(
    connection: "redis.Redis", queue: Queue, tools: Tools
) -> None:
    registry = RateLimitRegistry("gas", connection)
    failed_once(connection, queue, "failed", provider="gas")
    assert not registry.get_allowed_job_ids()
    suspend(connection)
    queue.put(step("note", "before", provider="gas"))

    tools.run("requeue", "--queue", FETCH, "failed")

    assert registry.get_rate_limited_job_ids() == ["failed"]
    assert registry.get_allowed_job_ids() == ["before"]
    queue.put(step("note", "after", provider="gas"))
    resume(connection)
    eventually(lambda: names(connection) == ["before", "failed", "after"])
    eventually(lambda: not leftovers(connection))
    assert not registry.get_allowed_job_ids()


def test_the_dashboard_shows_the_queues_the_worker_and_the_jobs(
    connection: "redis.Redis", queue: Queue, dashboard: Dashboard
) -> None:
    queue.put(step("note", "done"), step("broken", job_id="poison"))
    failure(connection, "poison")
    held = [f"job-{number}" for number in range(CONCURRENCY)]
    queue.put(*(step("note", name, "1.5") for name in held))
    eventually(lambda: running(connection) == CONCURRENCY)
    queue.put(step("note", "waits"), step("note", "delayed", wait=60))

    [shown] = [one for one in dashboard.data("queues")["queues"] if one["name"] == FETCH]
    counts = {name: shown[f"{name}_job_registry_count"] for name in ("started", "failed", "scheduled")}
    assert (shown["count"], counts) == (1, {"started": CONCURRENCY, "failed": 1, "scheduled": 1})
    assert sorted(dashboard.jobs("started")) == held
    assert (dashboard.jobs("queued"), dashboard.jobs("scheduled")) == (["waits"], ["delayed"])

    job = dashboard.data("job/job-0")
    assert (job["status"], job["origin"]) == ("started", FETCH)
    assert job["started_at"]

    [known] = eventually(lambda: dashboard.data("workers")["workers"])
    assert (known["state"], known["queues"]) == ("busy", list(QUEUES))
    assert known["name"] == rq.Worker.all(connection=connection)[0].name
    assert (known["successful_job_count"], known["failed_job_count"]) == (1, 1)


def test_the_dashboard_shows_the_reason_of_a_failed_job(
    connection: "redis.Redis", queue: Queue, dashboard: Dashboard
) -> None:
    queue.put(step("broken", job_id="poison"))
    failure(connection, "poison")

    assert dashboard.jobs("failed") == ["poison"]
    job = dashboard.data("job/poison")
    assert job["status"] == "failed"
    assert job["exc_info"].startswith("Traceback")
    assert job["exc_info"].endswith("RuntimeError: this job is poisoned\n")


@pytest.mark.parametrize("path", ["", "0/view/workers", f"0/view/jobs/{FETCH}/failed/8/asc/1", "0/view/job/poison"])
def test_the_pages_of_the_dashboard_load(
    connection: "redis.Redis", queue: Queue, dashboard: Dashboard, path: str
) -> None:
    queue.put(step("broken", job_id="poison"))
    failure(connection, "poison")

    assert "RQ dashboard" in dashboard.page(path)


@pytest.mark.parametrize("button", ["job/a/requeue", f"requeue/{FETCH}"])
def test_the_dashboard_runs_failed_jobs_again(
    connection: "redis.Redis", queue: Queue, dashboard: Dashboard, button: str
) -> None:
    failed_once(connection, queue, "a", provider="gas")

    dashboard.press(button)

    eventually(lambda: names(connection) == ["a"])
    eventually(lambda: not leftovers(connection))


def test_a_job_deleted_in_the_dashboard_does_not_run(
    connection: "redis.Redis", queue: Queue, dashboard: Dashboard
) -> None:
    queue.put(*(step("note", name, "0.3", provider="gas") for name in ("a", "b", "c")))
    eventually(lambda: running(connection))

    dashboard.press("job/b/delete")

    eventually(lambda: names(connection) == ["a", "c"])
    eventually(lambda: not leftovers(connection))
