"""Run again: the value by which a job asks to be run again."""

import math

from rq import Retry


class RunAgain(Retry):
    """Run the job again after `wait` seconds. RQ's stock worker treats this as its own `Retry`."""

    def __init__(self, wait: float) -> None:
        super().__init__(max=1_000_000, interval=math.ceil(wait))
        self.wait = wait
