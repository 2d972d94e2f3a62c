"""What stillreel is measured by: named work, the usual ways to do it, and the same judge for all of them."""
