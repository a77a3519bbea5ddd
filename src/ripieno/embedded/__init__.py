"""What comes with the package: workers that run anywhere, and task families with known answers."""
