"""Times: each moment has one text form, and texts sort in the order of time."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from persistence.records.request import seconds_until
from persistence.records.timestamps import from_text, to_text, utc_now

MOMENTS = [
    (datetime(2026, 11, 24, 10, tzinfo=UTC), "2026-11-24T10:00:00.000Z"),
    (datetime(2026, 11, 24, 10, 0, 0, 1999, tzinfo=UTC), "2026-11-24T10:00:00.001Z"),
    (datetime(2026, 11, 24, 10, tzinfo=timezone(timedelta(hours=5, minutes=30))), "2026-11-24T04:30:00.000Z"),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    (datetime.max.replace(tzinfo=UTC), "9999-12-31T23:59:59.999Z"),
]


@pytest.mark.parametrize(("moment", "text"), MOMENTS)
def test_a_time_is_written_in_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert to_text(moment) == text
    assert to_text(from_text(text)) == text


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T10:00:00Z", "2026-11-24t10:00:00z", "2026-11-24T11:00:00+01:00", "2026-11-24T10:00:00.000000-00:00"],
)
def test_every_rfc3339_form_is_read(text: str) -> None:
    assert from_text(text) == datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2026-11-24", "2026-11-24T10:00:00", "2026-02-30T10:00:00Z", "0001-01-01T00:00:00+01:00", "\ud800"],
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an RFC 3339 time with an offset"):
        from_text(text)


def test_the_time_now_is_in_utc() -> None:
    assert utc_now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("moment", "seconds"), [(None, 0), ("2026-11-24T09:59:59.000Z", 0), ("2026-11-24T10:00:01.500Z", 1.5)]
)
def test_a_past_or_missing_time_means_no_wait(moment: str | None, seconds: float) -> None:
    assert seconds_until(moment, datetime(2026, 11, 24, 10, tzinfo=UTC)) == seconds
