"""A model: where it comes from, how it is loaded, where its parts are, and how its layers compute on a CPU."""
