"""What makes an int8 graph more accurate by changing the numbers in it, not the operations."""
