"""Pictures to labels: fine-tuning, evaluation and prediction."""
