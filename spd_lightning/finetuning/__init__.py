"""Stage 3: the corpus as batches, the loss, the adapter, and the student that comes of it."""
