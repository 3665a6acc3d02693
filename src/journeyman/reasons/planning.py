"""What the plan warns of or refuses."""
