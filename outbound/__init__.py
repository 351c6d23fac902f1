"""Outgoing HTTP: one client, where it may go, calls by operationId, and signatures."""
