"""The only place that knows Celery: the app, the tasks, the schedule."""
