"""From the signature of a function to its options on the command line and in recipes."""
