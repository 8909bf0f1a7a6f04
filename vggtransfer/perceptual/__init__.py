"""Pictures to distances: perceptual losses and metrics, style transfer and super-resolution."""
