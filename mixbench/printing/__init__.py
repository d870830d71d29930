"""Results as tables and pictures: the commands that stand on `analysis`, which they import when they are called."""
