"""Files, workers, progress and strict YAML: what everything may use and nothing else knows."""
