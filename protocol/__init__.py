"""What a client of stillreel needs: the schema, the errors, the wire format and a client; pydantic and pyzmq only."""
