"""The networks, one file each, without data or training loops."""
