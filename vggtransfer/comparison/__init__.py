"""`vggtransfer compare`: networks trained alike, side by side."""
