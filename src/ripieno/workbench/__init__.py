"""Where conductors are trained and measured: tasks with answers, and workers that really execute."""
