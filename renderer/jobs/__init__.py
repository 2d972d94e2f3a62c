"""The life of a job: accepted, waiting, running, done."""
