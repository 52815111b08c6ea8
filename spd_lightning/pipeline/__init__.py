"""The order of the stages under Lightning trainers, the rounds, and what a run records of itself."""
