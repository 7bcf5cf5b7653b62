"""What the sync client is made of."""
