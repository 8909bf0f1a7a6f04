"""Pictures to masks: networks, losses, scores, training and prediction."""
