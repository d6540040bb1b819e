"""What the project claims in figures: each command makes a table, a JSON file and, where it helps, a plot."""
