"""Other SAMs, seen through the doors that their documentation opens."""
