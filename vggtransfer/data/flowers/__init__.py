"""Flowers painted by code: petals and stems, eight species, backgrounds, whole pictures with masks."""
