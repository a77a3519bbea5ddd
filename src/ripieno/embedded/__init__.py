"""The embedded pool: workers that run anywhere, and task families with known answers."""
