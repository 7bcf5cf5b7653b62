"""Any lookup for many keys."""
