"""The usual ways to make a video of stills, each as a command of its own that anyone can run."""
