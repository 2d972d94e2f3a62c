"""What is done with videos that were made elsewhere: another sound, a frame taken out, or a description."""
