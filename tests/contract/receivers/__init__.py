"""Receivers of callbacks that somebody else would write: with another implementation of Standard Webhooks."""
