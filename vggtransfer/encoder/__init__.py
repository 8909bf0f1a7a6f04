"""The shared VGG encoder: architectures, weights, freezing, precision."""
