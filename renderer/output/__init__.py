"""From access units to a file that players open."""
