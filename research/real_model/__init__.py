"""The study on a real model: Gemma 3 270M, experts trained here, prompts that others published."""
