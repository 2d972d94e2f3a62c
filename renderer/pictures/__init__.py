"""From a URL to a frame: fetch, decode, compose, and the pool that frames are lent from."""
