"""The manifest directory as a door: manifests are claimed by a rename, and end in done/ or failed/."""
