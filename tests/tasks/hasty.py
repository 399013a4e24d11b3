"""The app with a clock in a hurry: `celery --app tests.tasks.hasty beat` rings for every sweep each second."""

from tasks import app

app.conf.beat_schedule = {name: {**entry, "schedule": 1.0} for name, entry in app.conf.beat_schedule.items()}
