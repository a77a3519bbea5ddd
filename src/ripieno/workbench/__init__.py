"""The workbench trains and measures conductors: tasks with answers, and workers that really execute."""
