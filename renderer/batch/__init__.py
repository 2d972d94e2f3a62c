"""`stillreel batch`: every manifest below a directory, several at a time, resumable, without a daemon."""
