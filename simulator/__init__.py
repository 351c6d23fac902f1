"""Slow and flaky providers to try Datahog with."""
