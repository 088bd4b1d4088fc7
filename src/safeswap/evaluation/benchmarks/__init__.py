"""What is asked: benchmarks, their prompts and languages, and how questions are split."""
