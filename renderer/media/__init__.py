"""Files with time in them: the MP4 that a job makes, its soundtrack, and videos that were made elsewhere."""
