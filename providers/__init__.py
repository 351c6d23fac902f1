"""The providers: how each is fetched, and when it is retried."""
