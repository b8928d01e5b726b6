"""How one stage computes: built-in functions, ingestion, engines, models."""
