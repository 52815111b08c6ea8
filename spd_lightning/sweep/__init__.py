"""Many runs from one W&B sweep file, without W&B: the grid, its order, and the processes."""
