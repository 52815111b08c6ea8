"""Stage 4: benchmarks in and out of domain, with intervals and paired tests."""
