"""The sparse indexes: what is due, what is newest, and the shards of both."""
