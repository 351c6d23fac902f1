"""Receivers of callbacks as users write them, with other implementations of Standard Webhooks."""
