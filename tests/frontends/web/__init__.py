"""The page in a browser. A package, so that its tests share one browser and two daemons: pytest's scope for that."""
