"""Results: stored in parts, expired, and kept as JSON text."""
