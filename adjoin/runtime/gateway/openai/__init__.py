"""OpenAI's API, the pure part: what requests mean, and how answers are written."""
