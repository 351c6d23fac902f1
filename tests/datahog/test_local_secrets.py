"""The secrets of a stack on one machine: made once, readable by their owner only, and no API key on public hosts."""

from pathlib import Path

from datahog.local import local_secrets
from datahog.settings import Settings
from persistence.api_keys import new_key


def settings(directory: Path, **members: object) -> Settings:
    return Settings.model_validate({"data_dir": directory, **members})


def test_missing_secrets_are_made_and_kept_for_the_next_run(tmp_path: Path) -> None:
    first = local_secrets.fill_in(settings(tmp_path / "data"), keep=True)
    second = local_secrets.fill_in(settings(tmp_path / "data"), keep=True)

    assert first == second
    assert first.webhook_secrets
    assert first.local_key
    assert first.aggregator_key == first.local_key
    # The settings accept the secrets that were made.
    assert Settings.model_validate(first.model_dump()) == first


def test_kept_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    local_secrets.fill_in(settings(tmp_path), keep=True)

    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {local_secrets.API_KEY, local_secrets.WEBHOOK_SECRET}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_without_keep_no_secret_is_written(tmp_path: Path) -> None:
    first, second = (local_secrets.fill_in(settings(tmp_path), keep=False) for _ in range(2))

    assert first.local_key != second.local_key
    assert list(tmp_path.iterdir()) == []


def test_given_secrets_are_not_replaced(tmp_path: Path) -> None:
    keys = {"local_key": new_key(), "aggregator_key": new_key()}

    filled_in = local_secrets.fill_in(settings(tmp_path, **keys), keep=True)

    assert (filled_in.local_key, filled_in.aggregator_key) == tuple(keys.values())


def test_a_stack_on_a_public_address_gets_no_api_key(tmp_path: Path) -> None:
    filled_in = local_secrets.fill_in(settings(tmp_path, host="0.0.0.0"), keep=True)  # noqa: S104 -- nothing is bound

    assert (filled_in.local_key, filled_in.aggregator_key) == (None, None)
    assert filled_in.webhook_secrets
