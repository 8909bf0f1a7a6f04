"""What an encoder sees in pictures, without any training: maps of where a decision comes from."""
