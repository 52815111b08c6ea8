"""Stage 2: prompts to a corpus of the model's own completions."""
