"""Why curate drops, changes or notes a row."""
