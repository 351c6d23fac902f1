"""The record types: what the items of the tables say."""
