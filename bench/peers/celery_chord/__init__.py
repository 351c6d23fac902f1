"""The peer on Celery: a chord of one task for each provider, ended by the task that posts the callback."""
