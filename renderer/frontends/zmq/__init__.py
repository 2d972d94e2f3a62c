"""The ZeroMQ door: JSON-RPC over a ROUTER socket."""
