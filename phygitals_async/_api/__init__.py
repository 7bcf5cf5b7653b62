"""What the API is: its operations, their arguments, and the bytes they become."""
