"""Tasks of lm-evaluation-harness: asked through any backend, scored by the harness."""
