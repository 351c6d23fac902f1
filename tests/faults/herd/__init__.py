"""A provider that is down for long with many jobs waiting, and comes back: what it and the others notice."""
