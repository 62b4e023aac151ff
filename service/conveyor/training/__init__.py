"""Data readers, recipes, a seeded training loop, evaluation."""
