"""NVENC through PyNvVideoCodec, and everything else that only a GPU needs."""
