"""How good a workflow is: metrics of answers, and how far their means can be trusted. Pure."""
