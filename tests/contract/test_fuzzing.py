"""Schemathesis fuzzes both live APIs, as callers with a key, with a wrong key, and without a key."""

from pathlib import Path

import pytest

from tests.contract.api import Api
from tests.fuzz.campaign import Caller, fuzz

_EXAMPLES = {Caller.KEY: 30, Caller.WRONG_KEY: 5, Caller.NO_KEY: 5}
_SEED = 1


@pytest.mark.parametrize("caller", Caller)
def test_fuzzed_calls_get_declared_responses(api: Api, caller: Caller, tmp_path: Path) -> None:
    outcome = fuzz(api.name, api.url, caller, examples=_EXAMPLES[caller], seed=_SEED, directory=tmp_path)

    assert not outcome.failed, outcome.output
