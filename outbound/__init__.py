"""Outgoing HTTP: the client, the egress policy, calls by operationId and callback signatures."""
