"""Settings: the schema, recipes, and where each value came from. Nothing here imports torch."""
