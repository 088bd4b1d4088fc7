"""What the files of a model's folder in the results are called."""

MODEL = "model.json"
RESPONSES = "responses.jsonl"
REQUESTS = "requests.jsonl"
SCORES = "scores.jsonl"
VERDICTS = "verdicts"
