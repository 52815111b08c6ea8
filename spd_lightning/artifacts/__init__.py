"""What is written to disk: whole files, the store that runs share, a run's folder, and which option counts where."""
