"""What the files of a results folder are called; all but the first lie in a model's folder."""

MAJORITY_FILE = "majority.json"
MODEL = "model.json"
RESPONSES = "responses.jsonl"
REQUESTS = "requests.jsonl"
SCORES = "scores.jsonl"
VERDICTS = "verdicts"
