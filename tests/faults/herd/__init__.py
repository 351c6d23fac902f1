"""A provider is down for long with many jobs waiting, and returns: measures its calls and another provider's."""
