"""Pictures from folders to batches: layouts, decoding, augmentation, synthetic data."""
