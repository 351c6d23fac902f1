"""The peer on Celery: a chord of one task for each provider, whose last task posts the callback."""
