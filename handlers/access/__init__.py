"""Access control: authentication, scopes, rate limits and quotas of open requests."""
