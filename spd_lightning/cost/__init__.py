"""What a run is going to need: memory, time and disk of each stage, before anything is loaded."""
