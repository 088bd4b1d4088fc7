"""What is stored of an evaluation, and what is read back from it: rows, outcomes, candidates."""
